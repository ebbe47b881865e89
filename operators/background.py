"""Runs a slow step beside the dataflow, so that its worker never waits for it.

A worker that is inside the model for half a second does nothing else: windows, epochs and what
other workers send it wait for as long, and other workers wait for its epoch, spinning. So the step
runs in a thread, one for each worker, and the dataflow passes on what has come out of it.

An operator is only called with something to do. So the source sends a *nudge*, an item that holds
nothing, when there is something to pass on: a result, or a window behind it that is due.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from operators.worker import PerWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Ahead", "Background"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Background(Generic[Item, Result]):
    """A step that runs in a thread for each worker that calls it; items keep their order.

    All methods speak of the worker whose thread calls them.

    Args:
        step: Some items to their results. Calls of one worker come one after the other; those of
            several workers come at once.
        nudge: What stands for an item among the results that is none, and only asks for what is
            finished; None for any other.
    """

    def __init__(
        self,
        step: Callable[[Sequence[Item]], Sequence[Result]],
        nudge: Callable[[Item], Result | None],
    ) -> None:
        self._nudge = nudge
        self._worker = PerWorker(lambda: _Worker(step))

    def __call__(self, items: Sequence[Item]) -> list[Result]:
        """Begin with some items, and give back what has been finished since the last call.

        Raises:
            Exception: What the step raised.
        """
        worker = self._worker()
        fresh: list[Item] = []
        nudges: list[Result] = []
        for item in items:
            nudge = self._nudge(item)
            if nudge is None:
                fresh.append(item)
            else:
                nudges.append(nudge)
        if fresh:
            worker.put(fresh)
        return [*worker.take(), *nudges]

    def ready(self, *, ahead: bool) -> bool:
        """Whether the step can do with more items.

        Args:
            ahead: Whether to have some waiting while it runs, so that it never rests, rather than
                to gather for as long as it does.
        """
        waiting, running = self._worker().load()
        return not waiting and (ahead or not running)

    def finished(self) -> bool:
        """Whether there is something to be passed on."""
        return self._worker().finished

    def idle(self) -> bool:
        """Whether nothing is waiting, under way, or to be passed on."""
        worker = self._worker()
        waiting, running = worker.load()
        return not (waiting or running or worker.finished)


class _Worker(Generic[Item, Result]):
    """One worker's thread, what waits for it, and what it has finished."""

    def __init__(self, step: Callable[[Sequence[Item]], Sequence[Result]]) -> None:
        self._step = step
        self._changed = threading.Condition()
        self._waiting: list[Item] = []
        self._running = False
        self._done: deque[Result] = deque()
        self._failed: BaseException | None = None
        threading.Thread(target=self._run, name="model", daemon=True).start()

    @property
    def finished(self) -> bool:
        """Whether there are results, or an error."""
        return bool(self._done) or self._failed is not None

    def put(self, items: list[Item]) -> None:
        """Have the thread take items together with others that wait."""
        with self._changed:
            self._waiting += items
            self._changed.notify()

    def take(self) -> list[Result]:
        """The results so far."""
        with self._changed:
            if self._failed is not None:
                raise self._failed
            taken = list(self._done)
            self._done.clear()
        return taken

    def load(self) -> tuple[int, bool]:
        """How many items wait, and whether the step is running.

        Without the lock, being asked all the time: what goes on is told before what came before
        it is taken back, so at no moment does an item seem to be gone.
        """
        return len(self._waiting), self._running

    def _run(self) -> None:
        while self._failed is None:
            items = self._next()
            try:
                made: Sequence[Result] = self._step(items)
            except BaseException as error:  # noqa: BLE001 - raised where the results are taken
                made, self._failed = (), error
            with self._changed:
                self._done += made
                self._running = False

    def _next(self) -> list[Item]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            self._running = True
            items, self._waiting = self._waiting, []
        return items


class Gathering(Protocol):
    """A step of the dataflow that holds things back for a while, as `operators.window` does."""

    def due(self) -> bool:
        """Whether a nudge would bring something out of it."""

    def empty(self) -> bool:
        """Whether it holds nothing back."""

    def release(self) -> None:
        """Hold nothing back any more."""


@dataclass(frozen=True)
class Ahead(Generic[Item, Result]):
    """What the source asks of the steps ahead of it, of those of the worker that asks.

    Args:
        step: Runs in the background.
        gathering: What its results go to.
    """

    step: Background[Item, Result]
    gathering: Gathering

    def ready(self, *, ahead: bool) -> bool:
        """Whether the source should read more; see `Background.ready`."""
        return self.step.ready(ahead=ahead)

    def finished(self) -> bool:
        """Whether a nudge would bring something out."""
        return self.step.finished() or self.gathering.due()

    def release(self) -> None:
        """Nothing more is read: what is gathered need not wait for company."""
        self.gathering.release()

    def idle(self) -> bool:
        """Whether all that was read has come out."""
        return self.step.idle() and self.gathering.empty()
