"""The windowed batching operator: rows or milliseconds, and no wait where nothing follows.

Every lane has a window of its own. It opens with the first batch that reaches it and closes when
it holds `rows` records or `wait` has passed since it opened, never later: the clock is not reset
by what arrives in between, and it runs on when the stream goes quiet. It closes at once behind a
batch that left its lane drained: there is no company to wait for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import bytewax.operators as op
from bytewax.operators import StatefulBatchLogic

from operators.records import OutcomeBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bytewax.operators import KeyedStream

__all__ = ["Window", "WindowLogic", "beside", "window"]

Window = tuple[OutcomeBatch, ...]
"""What a window held when it closed: consecutive batches of one lane."""


def beside(window: Window) -> Window:
    """The outcomes that stand beside those of a window, of the same lane and range."""
    return tuple(batch.beside for batch in window if batch.beside is not None)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class WindowLogic(StatefulBatchLogic[OutcomeBatch, Window, None]):
    """The window of one lane.

    Its snapshot is empty on purpose: after a restart the source reads again whatever a sink
    lacks, so a restored record would pass twice.

    Args:
        rows: The most records that a window holds.
        wait: How long a window stays open.
        now: The clock.
    """

    rows: int
    wait: timedelta
    now: Callable[[], datetime] = _now

    def __post_init__(self) -> None:
        self._held: list[OutcomeBatch] = []
        self._count = 0
        self._closes: datetime | None = None

    def on_batch(self, values: list[OutcomeBatch]) -> tuple[Iterable[Window], bool]:
        """Take batches in; give back the windows that are full."""
        full: list[Window] = []
        for batch in values:
            full.extend(self._add(batch))
        return full, StatefulBatchLogic.RETAIN

    def on_notify(self) -> tuple[Iterable[Window], bool]:
        """The window's time is over: close it."""
        return self._close(), StatefulBatchLogic.RETAIN

    def on_eof(self) -> tuple[Iterable[Window], bool]:
        """The stream stops: close the window."""
        return self._close(), StatefulBatchLogic.RETAIN

    def notify_at(self) -> datetime | None:
        """When the open window must close; None when none is open."""
        return self._closes

    def snapshot(self) -> None:
        """Nothing: see the class."""

    def _add(self, batch: OutcomeBatch) -> Iterable[Window]:
        while self._count + len(batch) >= self.rows and len(batch):
            room = self.rows - self._count
            self._held.append(batch.slice(0, room))
            yield from self._close()
            if room == len(batch):
                return
            batch = batch.slice(room, len(batch))
        if self._closes is None:
            self._closes = self.now() + self.wait
        self._held.append(batch)
        self._count += len(batch)
        if batch.drained:
            yield from self._close()

    def _close(self) -> list[Window]:
        held, self._held = tuple(self._held), []
        self._count = 0
        self._closes = None
        return [held] if held else []


def window(
    step_id: str, up: KeyedStream[OutcomeBatch], rows: int, wait: timedelta
) -> KeyedStream[Window]:
    """Gather a lane's batches into windows of at most `rows` records, open for at most `wait`."""
    return op.stateful_batch(step_id, up, lambda _: WindowLogic(rows, wait))
