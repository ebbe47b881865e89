"""The LanceDB sink: rows and the table's progress in one commit, by one writer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from operators.window import Window
from sinks.committer import Committer
from sinks.pace import Pace
from sinks.remote import RemoteWriter
from sinks.routed import RoutedStore
from sinks.rows import table_rows, written_rows
from sinks.seam import check_seam
from telemetry.spans import NO_SPANS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operators.records import OutcomeBatch
    from recovery.progress import Board
    from recovery.watchdog import Watchdog
    from sinks.maintenance import Upkeep
    from sinks.protocol import Writer
    from sinks.schema import TableSchema
    from sinks.store import TableStore
    from telemetry.metrics import Metrics
    from telemetry.spans import Spans

__all__ = ["TablePartitionSink", "TableSink"]

COMMIT_ROWS: Final = 10_000
"""The most rows in one commit, where a backlog of windows waits for one."""

PACE_SHARE: Final = 0.4
"""The time between two commits, as a share of the freshness target: of twice that target, which
the table has, the model and the topic's pace take a half, a commit's wait and work the rest."""

LONGEST_MS: Final = 500.0
"""The longest time between two commits, however costly they are."""

SEVERAL_LONGEST_MS: Final = 5_000.0
"""The same where a commit goes to many tables, each of which costs as much as one: a hundred take
some 1.5 s of a core."""


@dataclass
class TableSink(FixedPartitionedSink[Window, None]):
    """Merges every lane's outcomes into one table.

    Parallelism: one part and one thread, whatever the number of lanes: a table has one writer.

    Guarantee: the table is what replaying the source in order would give. Rows and the next
    offset of each lane are in one commit, in which each key's row is that of its winning record.

    A replay is dropped up to the progress that the table had when the part was built, and merging
    a row again changes nothing.
    """

    store: TableStore | RoutedStore
    upkeep: Upkeep
    max_chunks: int
    freshness_ms: float
    lane_rows: int
    board: Board
    watchdog: Watchdog
    metrics: Metrics
    name: str = "table"
    behind: tuple[str, ...] = ("topic",)
    spans: Spans = NO_SPANS

    def list_parts(self) -> list[str]:
        """The one part."""
        return [self.name]

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
        opened = self.watchdog.ending(RemoteWriter.open)
        writer = opened(self.store, self.upkeep, self.max_chunks, self.watchdog.end)
        longest_ms = SEVERAL_LONGEST_MS if isinstance(self.store, RoutedStore) else LONGEST_MS
        target_ms = PACE_SHARE * self.freshness_ms
        pace = Pace(target_ms, longest_ms=longest_ms, lane_rows=self.lane_rows)
        return TablePartitionSink(
            writer,
            self.store.schema,
            pace,
            self.board,
            self.watchdog,
            self.metrics,
            self.name,
            self.behind,
            self.spans,
        )


class TablePartitionSink(StatefulSinkPartition[Window, None]):
    """The part: queues batches for its thread, once each, which hands them to the writer.

    Steps 4 and 7 of `recovery.progress`.

    Args:
        writer: Writes the table.
        schema: The table's.
        pace: How long to rest between two commits.
        board: Where progress is posted.
        watchdog: Watches each commit.
        metrics: Where to count.
        name: The sink's, on the board and in the metrics.
        behind: The sinks that must have a record first which depends on the row before it.
        spans: Told of each commit.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - each is a part of its own
        self,
        writer: Writer,
        schema: TableSchema,
        pace: Pace,
        board: Board,
        watchdog: Watchdog,
        metrics: Metrics,
        name: str = "table",
        behind: Sequence[str] = ("topic",),
        spans: Spans = NO_SPANS,
    ) -> None:
        self._name = name
        self._after = tuple(behind)
        self._writer = writer
        self._schema = schema
        self._board = board
        self._metrics = metrics
        self._spans = spans
        self._pace = pace
        self._behind = False
        self._floor = dict(writer.opened.progress)
        metrics.index_size.labels(name).set(writer.opened.rows)
        self._next: dict[str, int] = {}
        # The next offset of each lane when the last commit began.
        self._begun: dict[str, int] = {}
        self._committer: Committer[OutcomeBatch] = Committer(
            f"{name} commit",
            self._commit,
            len,
            watchdog,
            rows=COMMIT_ROWS,
            pause=self._rest,
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
        self._writer.close()

    def _write(self, batch: OutcomeBatch) -> None:
        lane = batch.lane.key
        check_seam(batch, self._next.get(lane))
        if lane not in self._next:
            self._board.own(self._name, lane)
            self._board.post(self._name, lane, self._floor.get(lane, -1))
        self._next[lane] = batch.end
        fresh = batch.since(self._floor.get(lane, -1))
        if fresh is not None:
            self._committer.put(fresh)
            if batch.end - self._begun.setdefault(lane, fresh.start) > self._pace.lane_rows:
                self._committer.hurry()

    def _commit(self, batches: Sequence[OutcomeBatch]) -> None:
        """Merge batches and their progress in one commit.

        Raises:
            SinkError: The table can't be written, or another writer has taken it over.
        """
        self._await_patches(batches)
        started = time.monotonic()
        span = self._spans.begin("table commit", batches)
        progress = {batch.lane.key: batch.end for batch in batches}
        self._begun.update(progress)
        rows = table_rows(batches) if self._schema.join is None else written_rows(batches)
        written = self._writer.commit(self._schema.rows(rows), progress)
        span.end()
        for lane, next_offset in progress.items():
            self._board.post(self._name, lane, next_offset)
        self._metrics.committed(self._name, batches, time.monotonic() - started)
        self._metrics.index_size.labels(self._name).set(written.rows)
        self._metrics.indexed(self._name, written.index_builds)
        self._pace.spent(written.cpu_s)
        # Whether the lanes had more to read behind all of it, whatever clocks say.
        self._behind = not any(batch.drained for batch in batches)

    def _rest(self, took_s: float) -> float:
        return self._pace.rest(took_s, behind=self._behind)

    def _await_patches(self, batches: Sequence[OutcomeBatch]) -> None:
        """Hold back a commit until others have its records that depend on the row before."""
        for batch in batches:
            if batch.has_patch:
                for sink in self._after:
                    self._board.wait_for(sink, batch.lane.key, batch.end)
