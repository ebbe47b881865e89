"""Where a lane goes on: the hand-over between source and sinks.

A lane's *progress* in a sink is a next-offset: every record below it has its outcome there. The
topic sink keeps it as the consumer group's committed offset, in the transaction that carries the
outcomes; the table keeps it in its fence row, in the commit that carries the rows. The order in
which a lane starts and runs makes any crash harmless; a state machine in the tests walks the same
numbers with a crash between any two:

1. The source fences: it initialises the lane's transactional id, so that a copy which still runs
   can commit no more and its open transaction is settled.
2. The source reads both sinks' progress and starts at the older one (`resume_offset`).
3. The topic sink fences again, in its own process, then reads the committed offset **once** and
   drops every record below the value read then: never below a moving value, which can pass a
   record that this run has not written.
4. The table sink reads its progress once, on opening the table, and does the same.
5. Records pass: source, decode, embed, window. Each batch joins the one before it without a seam,
   so a sink that holds batches up to an offset holds a contiguous prefix of the lane.
6. The topic sink commits outcomes, dead letters and the next offset in one transaction.
7. The table sink commits rows and the next offset in one merge. It holds back a batch in which a
   record changes only metadata until the topic has that record (`Board.wait_for`): a replay for
   the topic's sake then never meets a table that is already past such a record, and so always
   finds the row as it stood before it.
8. Both post their progress on the board of their process, which lets the source read on.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from threading import Condition
from typing import TYPE_CHECKING, Final, Literal

from recovery.errors import RecoveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

__all__ = ["SINKS", "Board", "Watermarks", "resume_offset"]

SINKS: Final = ("topic", "table")
"""The sinks whose progress a lane waits for, unless a flow has others."""

REFRESH_S: Final = 0.05
"""How long news of a sink is waited for before its committed progress is read, in seconds."""


@dataclass(frozen=True, slots=True)
class Watermarks:
    """The first offset that a partition still has, and the one that it will give next."""

    low: int
    high: int


def resume_offset(
    lane: str,
    marks: Watermarks,
    progress: Mapping[str, int | None],
    start: Literal["earliest", "latest"],
    missing: Literal["error", "skip"] = "error",
) -> int:
    """The offset from which a lane is read, so that no sink lacks a record.

    Args:
        lane: Its name, for errors.
        marks: What the partition holds.
        progress: The next offset of each sink; None where it has none.
        start: Where a lane starts of which no sink knows anything.
        missing: What to do when the topic no longer has a record that a sink lacks.

    Returns:
        The oldest of the sinks' next offsets. A sink without progress, beside one that has some,
        was added or lost: it gets all that the topic still has.

    Raises:
        RecoveryError: A sink lacks records that the topic no longer has, or stands beyond the
            topic's end, as it does when the topic was made anew.
    """
    known = {sink: offset for sink, offset in progress.items() if offset is not None}
    if not known:
        return marks.low if start == "earliest" else marks.high
    for sink, offset in known.items():
        if offset > marks.high:
            raise RecoveryError(
                f"source.topics: {lane} ends at {marks.high}, but the {sink} is at {offset}; the "
                "topic was made anew: set another kafka.application_id and table.name, or reset "
                "the group's offsets"
            )
        if offset < marks.low and missing == "error":
            raise RecoveryError(
                f"source.topics: {lane} starts at {marks.low}, but the {sink} needs {offset}; "
                f"retention has deleted {marks.low - offset} offsets: restore them, or set "
                "source.missing = skip to go on without them"
            )
    oldest = min(known.values()) if len(known) == len(progress) else marks.low
    return max(oldest, marks.low)


class Board:
    """The sinks' progress as far as this process knows it; safe for several threads.

    Args:
        durable: Reads the committed progress of a sink for some lanes. A cluster may run a lane's
            sink in another process, whose posts don't reach this board.
        sinks: The sinks whose progress a lane waits for.

    Attributes:
        sinks: These.
    """

    def __init__(
        self,
        durable: Mapping[str, Callable[[Collection[str]], Mapping[str, int]]] | None = None,
        sinks: Sequence[str] = SINKS,
    ) -> None:
        self.sinks = tuple(sinks)
        self._durable = dict(durable or {})
        self._changed = Condition()
        self._next: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._owned: set[tuple[str, str]] = set()

    def own(self, sink: str, lane: str) -> None:
        """The lane's sink runs in this process: its posts are all there is to know."""
        with self._changed:
            self._owned.add((sink, lane))

    def owns(self, sink: str, lane: str) -> bool:
        """Whether the lane's sink runs in this process and has seen where the lane starts."""
        with self._changed:
            return (sink, lane) in self._owned

    def post(self, sink: str, lane: str, next_offset: int) -> None:
        """A sink has committed all of the lane's records below an offset."""
        with self._changed:
            held = self._next[lane].get(sink, -1)
            if next_offset > held:
                self._next[lane][sink] = next_offset
                self._changed.notify_all()

    def refresh(self, sink: str, lanes: Collection[str]) -> None:
        """Ask where the progress of a sink in another process is kept, and post what it says."""
        foreign = [lane for lane in lanes if (sink, lane) not in self._owned]
        if foreign and sink in self._durable:
            for lane, next_offset in self._durable[sink](foreign).items():
                self.post(sink, lane, next_offset)

    def get(self, sink: str, lane: str) -> int:
        """The sink's next offset, -1 where this process has not heard of it."""
        with self._changed:
            return self._next[lane].get(sink, -1)

    def written(self, lane: str) -> int:
        """The lane's next offset in the slowest sink, -1 where one has not been heard of."""
        with self._changed:
            held = self._next[lane]
            return min(held.get(sink, -1) for sink in self.sinks)

    def wait_for(self, sink: str, lane: str, next_offset: int) -> None:
        """Wait until the sink has all of the lane's records below an offset.

        Without a limit: the caller stands under the watchdog's.
        """
        while not self._posted(sink, lane, next_offset):
            self.refresh(sink, [lane])

    def _posted(self, sink: str, lane: str, next_offset: int) -> bool:
        with self._changed:
            return self._changed.wait_for(
                lambda: self._next[lane].get(sink, -1) >= next_offset, REFRESH_S
            )
