"""How much may be read and not yet be in both sinks.

Bytewax holds a source back only at the end of an epoch; within one it would read on without
bound. So each worker has a budget of records and of bytes, shared out among the lanes that it
reads. Both are needed: a vector costs the same however short its text, and a text has as many
bytes as the broker lets it have.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from operators.records import RecordBatch

__all__ = [
    "LANE_AHEAD_BYTES",
    "READ_AHEAD_BYTES",
    "Amount",
    "InFlight",
    "WorkerBudget",
    "read_ahead",
]

READ_AHEAD_BYTES: Final = 64 << 20
"""What all lanes of a flow read ahead together, where they are many."""

LANE_AHEAD_BYTES: Final = 4 << 20
"""The most that one of few lanes reads ahead."""

LEAST_AHEAD_BYTES: Final = 256 << 10
"""The least, however many there are: a lane's reading must not wait for the broker each time."""


class Amount(NamedTuple):
    """Records, and the bytes of their keys, values and headers."""

    records: int
    size: int

    def exhausts(self, limit: Amount) -> bool:
        """Whether either of the two has reached its limit."""
        return self.records >= limit.records or self.size >= limit.size


class InFlight:
    """A lane's records on their way, counted by what both sinks have posted."""

    def __init__(self) -> None:
        self._batches: deque[tuple[int, int, int]] = deque()
        self._records = 0
        self._size = 0

    def add(self, batch: RecordBatch) -> None:
        """A batch was read."""
        self._batches.append((batch.end, len(batch), batch.size))
        self._records += len(batch)
        self._size += batch.size

    def settle(self, next_offset: int) -> Amount:
        """Both sinks have all records below an offset; returns what is still on its way."""
        while self._batches and self._batches[0][0] <= next_offset:
            _, records, size = self._batches.popleft()
            self._records -= records
            self._size -= size
        return Amount(self._records, self._size)


class WorkerBudget:
    """What one worker's lanes may have in flight together.

    A lane reads while it has less than its share of both, so it may exceed its share of bytes by
    the last batch: `sources.lane.BATCH_BYTES`, or one larger record.

    Args:
        records: The most records read and not yet written.
        size: The most bytes of them.
    """

    def __init__(self, records: int, size: int) -> None:
        self._records = records
        self._size = size
        self._lanes = 0

    def join(self) -> None:
        """One more lane is read by this worker."""
        self._lanes += 1

    @property
    def share(self) -> Amount:
        """The most that one of its lanes may have in flight; at least one record."""
        lanes = max(1, self._lanes)
        return Amount(max(1, self._records // lanes), max(1, self._size // lanes))


def read_ahead(lanes: int) -> int:
    """The bytes that a lane's client reads ahead, when a flow has so many lanes.

    A process may have to read all of them, so what they hold together must be bounded.
    """
    return max(LEAST_AHEAD_BYTES, min(LANE_AHEAD_BYTES, READ_AHEAD_BYTES // max(1, lanes)))
