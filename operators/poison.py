"""Steps that may end the process, with a guard that knows what is in their hands."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from operators.judging import record_size
from operators.records import DeadLetter, DocumentBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from contextlib import AbstractContextManager

    from operators.records import RecordBatch

__all__ = ["POISON", "Guard", "GuardedDecoder", "GuardedStep"]

POISON: Final = "poison"
"""The code of a record that the process died of."""

MESSAGE: Final = "the process died twice while it had this record alone in hand"

Result = TypeVar("Result")


class Guard(Protocol):
    """Told what is in hand; knows which records must not be again."""

    def holding(self, batches: Iterable[RecordBatch]) -> AbstractContextManager[None]:
        """Have records in hand, for the thread that calls."""

    def condemned(self, batch: RecordBatch) -> Collection[int]:
        """The indices of the records that are to become dead letters."""


@dataclass(frozen=True)
class GuardedDecoder:
    """A decoder that makes dead letters of condemned records without looking into them.

    Args:
        decode: The decoder; makes a dead letter of a record that has neither key nor value.
        guard: Knows which they are.
        max_record_bytes: Of a record; the decoder refuses a larger one without looking into it.
    """

    decode: Callable[[RecordBatch], DocumentBatch]
    guard: Guard
    max_record_bytes: int

    def __call__(self, batch: RecordBatch) -> DocumentBatch:
        """One document for each record of the batch, in its order."""
        if not len(batch):
            return self.decode(batch)
        condemned = [index for index in self.guard.condemned(batch) if self._fits(batch, index)]
        if not condemned:
            with self.guard.holding((batch,)):
                return self.decode(batch)
        bare = replace(
            batch,
            keys=_with(batch.keys, condemned, None),
            values=_with(batch.values, condemned, None),
            headers=_with(batch.headers, condemned, ()),
        )
        with self.guard.holding((bare,)):
            documents = self.decode(bare)
        dead = {index: DeadLetter(POISON, MESSAGE, batch.original(index)) for index in condemned}
        return replace(documents, records=batch, dead={**documents.dead, **dead})

    def _fits(self, batch: RecordBatch, index: int) -> bool:
        size = record_size(batch.keys[index], batch.values[index], batch.headers[index])
        return size <= self.max_record_bytes


@dataclass(frozen=True)
class GuardedStep(Generic[Result]):
    """A step behind the decoder whose guard knows what is in its hands.

    Args:
        step: The step.
        guard: Told.
    """

    step: Callable[[Sequence[DocumentBatch]], Result]
    guard: Guard

    def __call__(self, batches: Sequence[DocumentBatch]) -> Result:
        """What the step makes of some batches."""
        with self.guard.holding(batch.records for batch in batches):
            return self.step(batches)


def _with(column: Sequence[Any], indices: Collection[int], value: object) -> Sequence[Any]:
    """A column with another value in some places."""
    changed = list(column)
    for index in indices:
        changed[index] = value
    return changed
