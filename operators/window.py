"""The windowed batching operator: rows or milliseconds, and no wait where nothing follows.

Every lane has a window of its own. It opens with the first batch that reaches it and closes when
it holds `rows` records or `wait` has passed since it opened: the clock is not reset by what
arrives in between, and it runs on when the stream goes quiet. It closes at once behind a batch that
left its lane drained: there is no company to wait for.

A lane's window is on the worker that reads it. A keyed operator of Bytewax's would have it where
the key's hash falls: in a cluster half of all batches would go to another process and back for
the topic. Such an operator is called by the clock, though, and a plain one only with something to
do. So the source sends a *nudge*, a batch that holds nothing, when a window is `due`; see
`operators.background`.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import bytewax.operators as op

from operators.records import Lane, OutcomeBatch
from operators.worker import PerWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import timedelta

    from bytewax.dataflow import Stream
    from bytewax.operators import KeyedStream

__all__ = ["LaneWindow", "Window", "Windows", "beside", "window"]

Window = tuple[OutcomeBatch, ...]
"""What a window held when it closed: consecutive batches of one lane."""


def beside(window: Window) -> Window:
    """The outcomes that stand beside those of a window, of the same lane and range."""
    return tuple(batch.beside for batch in window if batch.beside is not None)


class LaneWindow:
    """The window of one lane.

    Nothing of it is in a snapshot: after a restart the source reads again whatever a sink lacks,
    so a restored record would pass twice.

    Args:
        rows: The most records that a window holds.
        wait_s: How long a window stays open, in seconds.

    Attributes:
        closes: When the open window must close; None when none is open.
    """

    def __init__(self, rows: int, wait_s: float) -> None:
        self._rows = rows
        self._wait = wait_s
        self._held: list[OutcomeBatch] = []
        self._count = 0
        self.closes: float | None = None

    def add(self, batch: OutcomeBatch, now: float) -> Iterator[Window]:
        """Take a batch in; give back the windows that are full."""
        while self._count + len(batch) >= self._rows and len(batch):
            room = self._rows - self._count
            self._held.append(batch.slice(0, room))
            yield self.close()
            if room == len(batch):
                return
            batch = batch.slice(room, len(batch))
        if self.closes is None:
            self.closes = now + self._wait
        self._held.append(batch)
        self._count += len(batch)
        if batch.drained:
            yield self.close()

    def close(self) -> Window:
        """What the open window holds; none is open then."""
        held, self._held = tuple(self._held), []
        self._count = 0
        self.closes = None
        return held


class Windows:
    """The windows of all lanes that a worker reads. All methods speak of the calling worker.

    Args:
        rows: The most records that a window holds.
        wait: How long a window stays open.
        now: The clock, in seconds, which never goes back.
    """

    def __init__(
        self, rows: int, wait: timedelta, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._now = now
        wait_s = wait.total_seconds()
        self._worker = PerWorker(lambda: _Worker(rows, wait_s))

    def __call__(self, batches: Sequence[OutcomeBatch]) -> list[tuple[str, Window]]:
        """Take batches in; the windows that are full or due, each under its lane's key."""
        worker, now = self._worker(), self._now()
        closed = [
            window for batch in batches if not batch.nudge for window in worker.add(batch, now)
        ]
        closed += worker.expired(now)
        return [(window[0].lane.key, window) for window in closed]

    def due(self) -> bool:
        """Whether a window must close."""
        return self._worker().due(self._now())

    def empty(self) -> bool:
        """Whether no window is open."""
        return self._worker().closes is None

    def release(self) -> None:
        """Nothing more is read: from now on each window is due at once."""
        self._worker().released = True


class _Worker:
    """One worker's windows.

    Attributes:
        closes: When the first of those that are open must close; None when none is open.
        released: Whether they need not wait.
    """

    def __init__(self, rows: int, wait_s: float) -> None:
        self._rows = rows
        self._wait = wait_s
        self._lanes: dict[Lane, LaneWindow] = {}
        self.closes: float | None = None
        self.released = False

    def due(self, now: float) -> bool:
        """Whether a window must close."""
        return self.closes is not None and (self.released or self.closes <= now)

    def add(self, batch: OutcomeBatch, now: float) -> Iterator[Window]:
        """Take a batch in; the windows that are full."""
        lane = self._lanes.get(batch.lane)
        if lane is None:
            lane = self._lanes[batch.lane] = LaneWindow(self._rows, self._wait)
        return lane.add(batch, now)

    def expired(self, now: float) -> list[Window]:
        """Close the windows that are due."""
        lanes = self._lanes.values()
        last = math.inf if self.released else now
        due = [lane for lane in lanes if lane.closes is not None and lane.closes <= last]
        closed = [lane.close() for lane in due]
        left = (lane.closes for lane in lanes if lane.closes is not None)
        self.closes = min(left, default=None)
        return closed


def window(step_id: str, up: Stream[OutcomeBatch], windows: Windows) -> KeyedStream[Window]:
    """Gather a lane's batches into windows, keyed by their lane."""
    return op.flat_map_batch(step_id, up, windows)
