"""How much a worker reads at a time: little while it is fresh, more while it is behind.

A worker embeds all that its lanes read in one go, a *step*. Small steps let the first documents of
a burst leave early. Large ones have more texts to sort by length, which saves up to a fifth of the
model's work, but hold everything else up for as long as they take.

Epochs bound them, too. Bytewax ends an epoch when the last worker of a cluster has, and until then
the others wait, spinning. So a step is cut to end with the epoch, whose length is learnt.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["WorkerPace"]

LEAST_RECORDS: Final = 8
MOST_RECORDS: Final = 2048
"""Of a step. The least is what a cut by cost makes do with, the most what a transaction takes."""

MOST_S: Final = 1.0
"""The longest step, in seconds: some 400 short texts, with which little is lost on padding."""

_MEMORY: Final = 0.3
"""The weight of the newest step in what a record is taken to cost."""

_EPOCHS: Final = 5
"""Of so many epochs the shortest is taken for the next one's length: waiting makes one longer."""


class WorkerPace:
    """How many records each of a worker's lanes may read in the step that it begins.

    Args:
        least_s: The length of a step while the worker is fresh, in seconds.
    """

    def __init__(self, least_s: float) -> None:
        self._least = least_s
        self._span = least_s
        self._asked: set[object] = set()
        self._began = 0.0
        self._records = 0
        self._lanes = 0
        self._behind = False
        self._cost: float | None = None
        self._epoch_began: float | None = None
        self._epochs: deque[float] = deque(maxlen=_EPOCHS)
        self._limit = LEAST_RECORDS

    @property
    def behind(self) -> bool:
        """Whether there was more to read when the last step was measured out."""
        return self._span > self._least

    def room(self, lane: object, now: float) -> int:
        """The most records that a lane may read now.

        Args:
            lane: Which one; when it asks again, the step is over.
            now: Seconds on a clock that never goes back.
        """
        if lane in self._asked:
            self._end(now)
        if not self._asked:
            self._began = now
        self._asked.add(lane)
        return self._limit

    def took(self, records: int, *, drained: bool) -> None:
        """A lane has read, in the step under way.

        Args:
            records: How many.
            drained: Whether there was nothing more behind them.
        """
        self._records += records
        self._lanes += 1
        self._behind = self._behind or not drained

    def epoch_ended(self, now: float) -> None:
        """Bytewax has begun another epoch; told more than once where there are several lanes."""
        if self._epoch_began is not None and now - self._epoch_began > self._least:
            self._epochs.append(now - self._epoch_began)
            self._epoch_began = now
        elif self._epoch_began is None:
            self._epoch_began = now

    def _end(self, now: float) -> None:
        """Learn from the step that is over, and measure out the next."""
        if self._records:
            cost = (now - self._began) / self._records
            held = cost if self._cost is None else self._cost
            self._cost = held + _MEMORY * (cost - held)
            self._span = min(2 * self._span, MOST_S) if self._behind else self._least
        self._limit = self._share(now)
        self._asked.clear()
        self._records = self._lanes = 0
        self._behind = False

    def _share(self, now: float) -> int:
        """The records that each lane with something to read may take."""
        if self._cost is None:
            return LEAST_RECORDS
        records = self._until_epoch_ends(now) / max(self._cost, 1e-7)
        step = min(max(int(records), LEAST_RECORDS), MOST_RECORDS)
        return -(-step // max(1, self._lanes))

    def _until_epoch_ends(self, now: float) -> float:
        """The length of the next step in seconds."""
        if self._epoch_began is None or not self._epochs:
            return self._span
        left = self._epoch_began + min(self._epochs) - now
        return min(self._span, max(left, self._least))
