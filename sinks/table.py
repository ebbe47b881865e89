"""The LanceDB sink: rows and the table's progress in one commit, by one writer."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
import structlog
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from headrace.errors import HeadraceError
from operators.window import Window
from recovery.watchdog import end_process
from sinks.committer import Committer
from sinks.errors import SinkError
from sinks.maintenance import Maintenance
from sinks.schema import TableRow, row_key, table_rows
from sinks.seam import check_seam
from sinks.store import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from operators.records import OutcomeBatch
    from recovery.progress import Board
    from recovery.watchdog import Watchdog
    from sinks.maintenance import Upkeep
    from sinks.store import Fence, TableStore
    from telemetry.metrics import Metrics

__all__ = ["TableSink", "TableWriter"]

log = structlog.get_logger(__name__)

COMMIT_ROWS: Final = 5000
"""The most rows in one commit, where a backlog of windows waits for one."""

CONFLICT_RETRIES: Final = 20


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
        try:
            writer = TableWriter(self.store, self.upkeep, self.max_chunks, self.board, self.metrics)
        except HeadraceError as error:
            end_process(f"headrace: {error}", error.exit_code)
            raise
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


class TableWriter:
    """Writes the table; only one may, and a second one ends the first.

    Args:
        store: The table.
        upkeep: How it is kept.
        max_chunks: The most rows a document can have.
        board: Where progress is posted.
        metrics: Where to count.

    Raises:
        SinkError: The table can't be opened, or holds a key twice.
    """

    def __init__(
        self,
        store: TableStore,
        upkeep: Upkeep,
        max_chunks: int,
        board: Board,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._max_chunks = max_chunks
        self._board = board
        self._metrics = metrics
        self._writer = uuid.uuid4().hex
        self._maintenance = Maintenance(store, upkeep)
        self._maintenance.sweep()
        self._dataset = store.open()
        self._check_keys()
        self.fence: Fence = store.fence(self._dataset)
        self._merge(None, {})  # take over: the writer before sees another name than its own

    def commit(self, batches: Sequence[OutcomeBatch]) -> None:
        """Merge batches and their progress in one commit.

        Raises:
            SinkError: The table can't be written, or another writer has taken it over.
        """
        self._await_patches(batches)
        started = time.monotonic()
        self._check_writer()
        rows = self._with_shrunk(table_rows(batches))
        progress = {batch.lane.key: batch.end for batch in batches}
        self._merge(self._store.schema.rows(rows) if rows else None, progress)
        for lane, next_offset in progress.items():
            self._board.post("table", lane, next_offset)
        self._metrics.committed("table", batches, time.monotonic() - started)
        self._keep_up()

    def idle(self) -> None:
        """Nothing to commit: see whether this is still the writer, and keep the table up.

        Raises:
            SinkError: Another writer has taken the table over, or it can't be kept up.
        """
        try:
            self._check_writer()
        except (OSError, RuntimeError, ValueError) as error:
            raise self._failed(error) from error
        self._keep_up()

    def _keep_up(self) -> None:
        try:
            self._maintenance.run(self._dataset)
        except (OSError, RuntimeError, ValueError) as error:
            raise self._failed(error) from error

    def _await_patches(self, batches: Sequence[OutcomeBatch]) -> None:
        """Hold back a commit until the topic has its records that depend on the row before."""
        for batch in batches:
            if any(row.patch for row in batch.rows):
                self._board.wait_for("topic", batch.lane.key, batch.end)

    def _check_writer(self) -> None:
        """Find out whether another writer has committed since our own last commit."""
        if self._dataset.latest_version == self._dataset.version:
            return
        self._dataset.checkout_latest()  # type: ignore[no-untyped-call]  # Lance's own gap
        held = self._store.fence(self._dataset)
        if held.writer != self._writer:
            raise SinkError(
                f"table.name: {self._store.name}: a second copy of this flow writes it; this one "
                "ends"
            )

    def _with_shrunk(self, rows: list[TableRow]) -> list[TableRow]:
        """Add tombstones for chunks that the table has and their documents no longer do."""
        if self._max_chunks == 1:
            return rows
        heads = {r.row.id: r for r in rows if r.chunk == 0}
        stale = [
            TableRow(
                row_key(i, c), heads[i].lane, heads[i].offset, heads[i].embedded_at, c, heads[i].row
            )
            for i, c in self._further_chunks(heads)
            if c >= _chunks(heads[i])
        ]
        return rows + stale

    def _further_chunks(self, ids: Mapping[str, object]) -> list[tuple[str, int]]:
        quoted = ", ".join("'" + identity.replace("'", "''") + "'" for identity in ids)
        if not quoted:
            return []
        found = self._dataset.to_table(
            columns=["id", "chunk"], filter=f"chunk > 0 AND NOT deleted AND id IN ({quoted})"
        )
        return list(zip(*(found.column(n).to_pylist() for n in ("id", "chunk")), strict=True))

    def _merge(self, rows: pa.Table | None, progress: Mapping[str, int]) -> None:
        fence = self.fence.after(self._writer, progress)
        now_ms = time.time_ns() // 1_000_000
        mark = self._store.schema.fence(fence.json(), fence.sequence, now_ms)
        try:
            (
                self._dataset.merge_insert("key")
                .when_matched_update_all(self._store.schema.guard)
                .when_not_matched_insert_all()
                .use_index(False)  # noqa: FBT003 - Lance's own signature
                .conflict_retries(CONFLICT_RETRIES)
                .execute(mark if rows is None else pa.concat_tables([rows, mark]))
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise self._failed(error) from error
        self.fence = fence

    def _failed(self, error: Exception) -> SinkError:
        return SinkError(
            f"table.uri: {self._store.uri}: can't write table {self._store.name}: {one_line(error)}"
        )

    def _check_keys(self) -> None:
        keys = self._dataset.to_table(columns=["key"]).column("key")
        self._metrics.index_size.set(len(keys))
        double = len(keys) - pc.count_distinct(keys.cast(pa.binary())).as_py()
        if double:
            raise SinkError(
                f"table.name: {self._store.name}: {double} keys stand in it twice, so something "
                "else has written to it; set another table.name to build it anew from the topic"
            )


def _chunks(row: TableRow) -> int:
    return 1 if row.row.encoded is None else len(row.row.encoded.vectors)
