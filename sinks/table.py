"""The LanceDB sink: rows and the table's progress in one commit, by one writer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from operators.window import Window
from recovery.watchdog import ending
from sinks.committer import Committer
from sinks.seam import check_seam
from sinks.writer import TableWriter

if TYPE_CHECKING:
    from operators.records import OutcomeBatch
    from recovery.progress import Board
    from recovery.watchdog import Watchdog
    from sinks.maintenance import Upkeep
    from sinks.store import TableStore
    from telemetry.metrics import Metrics

__all__ = ["TablePartitionSink", "TableSink"]

COMMIT_ROWS: Final = 5000
"""The most rows in one commit, where a backlog of windows waits for one."""


def _pause(took: float) -> float:
    """Rest three times as long as a commit took, so that commits leave the core to the model.

    What arrives meanwhile shares the next one; after a quiet moment the next one comes at once.
    """
    return min(3 * took, 0.5)


@dataclass
class TableSink(FixedPartitionedSink[Window, None]):
    """Merges every lane's outcomes into one table.

    Parallelism: one part and one thread, whatever the number of lanes: a table has one writer.

    Guarantee: the table is what replaying the source in order would give. Rows and the next
    offset of each lane are in one commit, in which each key's row is that of its winning record.

    A replay is dropped up to the progress that the table had when the part was built, and merging
    a row again changes nothing.
    """

    store: TableStore
    upkeep: Upkeep
    max_chunks: int
    board: Board
    watchdog: Watchdog
    metrics: Metrics

    def list_parts(self) -> list[str]:
        """The one part."""
        return ["table"]

    def part_fn(self, item_key: str) -> int:  # noqa: ARG002 - Bytewax's interface
        """The one part, whatever the lane."""
        return 0

    def build_part(
        self,
        step_id: str,  # noqa: ARG002 - Bytewax's interface
        for_part: str,  # noqa: ARG002
        resume_state: None,  # noqa: ARG002 - the fence row is the state
    ) -> TablePartitionSink:
        """Open the table for writing."""
        make = ending(TableWriter)
        writer = make(self.store, self.upkeep, self.max_chunks, self.board, self.metrics)
        return TablePartitionSink(writer, self.board, self.watchdog)


class TablePartitionSink(StatefulSinkPartition[Window, None]):
    """The part: queues batches for the writer's thread, once each.

    Steps 4 and 7 of `recovery.progress`.

    Args:
        writer: Writes the table.
        board: Where progress is posted.
        watchdog: Watches each commit.
    """

    def __init__(self, writer: TableWriter, board: Board, watchdog: Watchdog) -> None:
        self._board = board
        self._floor = dict(writer.fence.progress)
        self._next: dict[str, int] = {}
        self._committer: Committer[OutcomeBatch] = Committer(
            "table commit",
            writer.commit,
            len,
            watchdog,
            rows=COMMIT_ROWS,
            pause=_pause,
            idle=writer.idle,
        )

    def write_batch(self, values: list[Window]) -> None:
        """Queue what the table does not have yet; returns at once."""
        for window in values:
            for batch in window:
                self._write(batch)

    def snapshot(self) -> None:
        """Nothing: the fence row is the state."""

    def close(self) -> None:
        """Commit what is queued."""
        self._committer.close()

    def _write(self, batch: OutcomeBatch) -> None:
        lane = batch.lane.key
        check_seam(batch, self._next.get(lane))
        if lane not in self._next:
            self._board.own("table", lane)
            self._board.post("table", lane, self._floor.get(lane, -1))
        self._next[lane] = batch.end
        fresh = batch.since(self._floor.get(lane, -1))
        if fresh is not None:
            self._committer.put(fresh)
