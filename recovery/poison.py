"""Keeps a record that ends the process from ending it again and again."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from recovery.in_hand import InHand
from recovery.suspects import Suspects, mark_of
from recovery.trial import Trial
from recovery.watchdog import before_end, ending

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from operators.records import RecordBatch

__all__ = ["PoisonGuard"]


class PoisonGuard:
    """Notes what native code has in hand, and knows which records are condemned.

    Args:
        folder: Of the flow's suspects, on a disk of this machine.

    Raises:
        RecoveryError: It can't be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self._suspects = Suspects(folder)
        self._in_hand = InHand(folder)
        before_end(self.forgive)

    def try_suspects(
        self,
        lanes: Collection[str],
        read: Callable[[str, int, int], Iterable[RecordBatch]],
        attempt: Callable[[RecordBatch], object],
        control: Callable[[], object],
        asked: Callable[[], bool],
    ) -> None:
        """Try what was in hand at the end of processes before this one; see `recovery.trial`.

        Raises:
            HeadraceError: The suspects can't be read or written, or the topic can't be read.
        """
        Trial(self._suspects, self._in_hand, read, attempt, control, asked).run(lanes)

    def holding(self, batches: Iterable[RecordBatch]) -> AbstractContextManager[None]:
        """Have records in hand, for the thread that calls."""
        spans: dict[str, tuple[int, int]] = {}
        for batch in batches:
            if len(batch):
                # Batches of a lane come in order, one joining the other.
                start, _ = spans.get(batch.lane.key, (batch.start, 0))
                spans[batch.lane.key] = start, batch.end
        return self._in_hand.holding([(lane, *span, 0, "") for lane, span in spans.items()])

    def condemned(self, batch: RecordBatch) -> Sequence[int]:
        """The indices of the records that are to become dead letters."""
        known = self._condemned.get(batch.lane.key)
        if known is None:
            return ()
        return [
            index
            for index, offset in enumerate(batch.offsets)
            if offset in known and known[offset] == mark_of(batch, index)
        ]

    def forgive(self) -> None:
        """However the process ends from now on, no record is to blame."""
        self._in_hand.forgive()

    @cached_property
    def _condemned(self) -> dict[str, dict[int, str]]:
        """For each lane the marks, by offset.

        Read with the first record and not before: processes of a cluster start one after the
        other, and run once all of them have tried what they were to.
        """
        ending(self._suspects.load)()
        found: dict[str, dict[int, str]] = {}
        for (lane, offset), mark in self._suspects.condemned.items():
            found.setdefault(lane, {})[offset] = mark
        return found
