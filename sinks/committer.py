"""The background thread in which a sink commits, one for each part.

A commit takes milliseconds to tens of them; inside Bytewax's `write_batch` it would hold up the
worker, and inside `snapshot` every epoch. The queue needs no bound of its own: the source lets
only so many records be between itself and the slower sink.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog

from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recovery.watchdog import Watchdog

__all__ = ["Committer"]

log = structlog.get_logger(__name__)

Item = TypeVar("Item")


class Committer(Generic[Item]):
    """Commits queued items in order, together where several wait.

    Args:
        name: What it commits to, for logs and errors.
        commit: Commits some items, in their order, or raises.
        weigh: How many rows an item has.
        watchdog: Watches each commit.
        rows: The most rows in one commit; a single larger item goes alone.
        pause: How long to rest after a commit that took so many seconds: what arrives meanwhile
            shares the next one. Half as many rows as one may have end the rest at once, and so
            does `hurry`.
        idle: Called in the thread, about once a second while nothing is queued.
        end: What ends the process when a commit fails; the watchdog's own unless given.
    """

    def __init__(
        self,
        name: str,
        commit: Callable[[Sequence[Item]], None],
        weigh: Callable[[Item], int],
        watchdog: Watchdog,
        rows: int,
        pause: Callable[[float], float] = lambda _: 0.0,
        idle: Callable[[], None] = lambda: None,
        end: Callable[[str, int], None] | None = None,
    ) -> None:
        self._name = name
        self._commit = commit
        self._weigh = weigh
        self._watchdog = watchdog
        self._rows = rows
        self._pause = pause
        self._plenty = rows // 2
        self._queued = 0
        self._hurried = False
        self._idle = idle
        self._end = end or watchdog.end
        self._queue: deque[Item] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Queue an item; returns at once."""
        with self._changed:
            self._queue.append(item)
            self._queued += self._weigh(item)
            self._changed.notify()

    def hurry(self) -> None:
        """Begin the next commit without further rest."""
        with self._changed:
            self._hurried = True
            self._changed.notify()

    def close(self, timeout: float = 60.0) -> None:
        """Commit what is queued and end the thread; never raises.

        Args:
            timeout: How long to wait for that, in seconds. What is not committed by then is
                committed by the next run.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        if self._thread.is_alive():
            log.warning("not drained", stage=self._name, timeout_s=timeout)

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except HeadraceError as error:
            self._fail(str(error), error.exit_code)
        except BaseException as error:
            log.exception("commit failed", stage=self._name)
            self._fail(f"{self._name}: {type(error).__name__}: {error}", 1)

    def _turn(self) -> bool:
        """Commit once, or idle once; whether there can be more to do."""
        items, closed = self._take()
        if not items:
            if not closed:
                self._idle()
            return not closed
        started = time.monotonic()
        with self._watchdog.busy(self._name):
            self._commit(items)
        self._rest(self._pause(time.monotonic() - started))
        return True

    def _fail(self, message: str, code: int) -> None:
        line = message.replace("\n", " ")
        self._end(f"headrace: {line}", code)

    def _rest(self, seconds: float) -> None:
        with self._changed:
            if seconds > 0:
                self._changed.wait_for(self._has_plenty, seconds)
            self._hurried = False

    def _has_plenty(self) -> bool:
        return self._closing or self._hurried or self._queued >= self._plenty

    def _take(self) -> tuple[list[Item], bool]:
        """The next items to commit together, after at most a second; whether it is closing."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing, 1.0)
            return self._pop(), self._closing

    def _pop(self) -> list[Item]:
        taken: list[Item] = []
        rows = 0
        while self._queue and (not taken or rows + self._weigh(self._queue[0]) <= self._rows):
            taken.append(self._queue.popleft())
            rows += self._weigh(taken[-1])
        self._queued -= rows
        return taken
