"""How many records may be read and not yet be in both sinks.

Bytewax holds a source back only at the end of an epoch; within one it would read on without
bound. So each worker has a budget, shared out among the lanes that it reads.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from operators.records import RecordBatch

__all__ = ["InFlight", "WorkerBudget"]


class InFlight:
    """A lane's records on their way, counted by what both sinks have posted."""

    def __init__(self) -> None:
        self._batches: deque[tuple[int, int]] = deque()
        self._records = 0

    def add(self, batch: RecordBatch) -> None:
        """A batch was read."""
        self._batches.append((batch.end, len(batch)))
        self._records += len(batch)

    def settle(self, next_offset: int) -> int:
        """Both sinks have all records below an offset; returns how many are still on their way."""
        while self._batches and self._batches[0][0] <= next_offset:
            self._records -= self._batches.popleft()[1]
        return self._records


class WorkerBudget:
    """What one worker's lanes may have in flight together.

    Args:
        records: The most records read and not yet written.
    """

    def __init__(self, records: int) -> None:
        self._records = records
        self._lanes = 0

    def join(self) -> None:
        """One more lane is read by this worker."""
        self._lanes += 1

    @property
    def share(self) -> int:
        """The most records that one of its lanes may have in flight; at least one."""
        return max(1, self._records // max(1, self._lanes))
