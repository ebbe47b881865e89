"""Tries suspected records, each alone in this process's hands, before anything else runs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from recovery.suspects import mark_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from operators.records import RecordBatch
    from recovery.in_hand import InHand
    from recovery.suspects import Suspects

__all__ = ["Trial"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Trial:
    """Tries the suspects of a flow.

    The control is what keeps a machine on which everything crashes from condemning every record:
    it has no record in hand, so the process that dies of it blames none.

    Attributes:
        suspects: Whom.
        in_hand: Where to note which of them is in hand.
        read: The records of a lane from an offset up to another that its topic still has, a batch
            for each.
        attempt: Does with a record what may crash, and nothing else.
        control: Does the same with what is known to be harmless.
        asked: Whether to leave the rest for the next start.
    """

    suspects: Suspects
    in_hand: InHand
    read: Callable[[str, int, int], Iterable[RecordBatch]]
    attempt: Callable[[RecordBatch], object]
    control: Callable[[], object]
    asked: Callable[[], bool]

    def run(self, lanes: Collection[str]) -> None:
        """Take over what was left in hand, and try it; waits for another process that does.

        Args:
            lanes: The keys of the flow's lanes; a suspect of another lane is dropped.

        Raises:
            HeadraceError: The suspects can't be read or written, or the topic can't be read.
        """
        with self.suspects.locked():
            self.suspects.adopt()
            if self.suspects.ranges or self.suspects.named:
                self._all(lanes)

    def _all(self, lanes: Collection[str]) -> None:
        known = self.suspects
        records = sum(end - start for _, start, end in known.ranges) + len(known.named)
        log.warning("trying suspects", stage="recovery", records=records, named=len(known.named))
        started = time.monotonic()
        self.control()
        tried = 0
        for batch, deaths in self._records(lanes):
            if self.asked():
                return
            held = (batch.lane.key, batch.start, batch.end, deaths + 1, mark_of(batch))
            with self.in_hand.holding([held]):
                self.attempt(batch)
            tried += 1
        took = round(time.monotonic() - started, 3)
        log.info("suspects cleared", stage="recovery", records=tried, seconds=took)

    def _records(self, lanes: Collection[str]) -> Iterator[tuple[RecordBatch, int]]:
        """Each suspect, and how often the process has died of it alone.

        One counts as survived when the next is asked for. Those that are named come first: nothing
        but themselves stands between a start and them.
        """
        known = self.suspects
        survived = set()
        for (lane, offset), (deaths, mark) in sorted(known.named.items()):
            for batch in self.read(lane, offset, offset + 1) if lane in lanes else ():
                yield batch, deaths if mark == mark_of(batch) else 0
                survived.add((lane, offset))
            del known.named[lane, offset]
            known.save()
        while known.ranges:
            lane, start, end = known.ranges[0]
            for batch in self.read(lane, start, end) if lane in lanes else ():
                place = lane, batch.start
                if place not in survived and known.condemned.get(place) != mark_of(batch):
                    yield batch, 0
                    known.ranges[0] = lane, batch.end, end
                    known.save()
            del known.ranges[0]
            known.save()
