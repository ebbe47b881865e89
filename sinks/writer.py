"""The table's single writer: merges outcomes and progress, and notices another writer."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from sinks.chunks import all_chunks, has_chunks
from sinks.errors import SinkError
from sinks.maintenance import Maintenance
from sinks.schema import winning_heads
from sinks.store import LANCE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from operators.records import OutcomeBatch
    from recovery.progress import Board
    from sinks.maintenance import Upkeep
    from sinks.schema import TableRow
    from sinks.store import Fence, TableStore
    from telemetry.metrics import Metrics

__all__ = ["TableWriter"]

CONFLICT_RETRIES: Final = 20


def _is_conflict(error: Exception) -> bool:
    text = str(error).lower()
    return "concurrent" in text or "conflict" in text


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
        self._board = board
        self._metrics = metrics
        self._name = uuid.uuid4().hex
        self._maintenance = Maintenance(store, upkeep)
        self._maintenance.sweep()
        self._dataset = store.open()
        with store.reading():
            self._check_keys()
            self._chunked = max_chunks > 1 or has_chunks(self._dataset)
        self.fence: Fence = self._take_over()

    def commit(self, batches: Sequence[OutcomeBatch]) -> None:
        """Merge batches and their progress in one commit.

        Raises:
            SinkError: The table can't be written, or another writer has taken it over.
        """
        self._await_patches(batches)
        started = time.monotonic()
        progress = {batch.lane.key: batch.end for batch in batches}
        self._merge(winning_heads(batches), progress)
        for lane, next_offset in progress.items():
            self._board.post("table", lane, next_offset)
        self._metrics.committed("table", batches, time.monotonic() - started)
        self._keep_up()

    def idle(self) -> None:
        """Nothing to commit: see whether this is still the writer, and keep the table up.

        Raises:
            SinkError: Another writer has taken the table over, or it can't be kept up.
        """
        self._refresh()
        self._keep_up()

    def _take_over(self) -> Fence:
        """Write this writer's name into the fence: the one before it sees that and ends."""
        for _ in range(CONFLICT_RETRIES):
            held = self._store.fence(self._dataset)
            fence = held.after(self._name, {})
            if self._try_merge([], fence):
                return fence
            self._latest()
        raise SinkError(f"table.name: {self._store.name}: others write to it without a pause")

    def _merge(self, heads: list[TableRow], progress: Mapping[str, int]) -> None:
        """Commit on the table's newest version, as long as that is this writer's.

        Lance itself would retry a conflicting merge and not ask whose the newer version is.
        """
        for _ in range(CONFLICT_RETRIES):
            self._refresh()
            fence = self.fence.after(self._name, progress)
            if self._try_merge(heads, fence):
                self.fence = fence
                return
        raise SinkError(f"table.name: {self._store.name}: others write to it without a pause")

    def _try_merge(self, heads: list[TableRow], fence: Fence) -> bool:
        """Commit rows and a fence; whether no one else committed meanwhile."""
        with self._store.writing():
            rows = heads
            if self._chunked:
                rows = all_chunks(self._dataset, self._store.schema, heads)
            now_ms = time.time_ns() // 1_000_000
            mark = self._store.schema.fence(fence.json(), fence.sequence, now_ms)
            merged = pa.concat_tables([self._store.schema.rows(rows), mark]) if rows else mark
            try:
                (
                    self._dataset.merge_insert("key")
                    .when_matched_update_all(self._store.schema.guard)
                    .when_not_matched_insert_all()
                    .use_index(False)  # noqa: FBT003 - Lance's own signature
                    .conflict_retries(0)
                    .execute(merged)
                )
            except LANCE_ERRORS as error:
                if _is_conflict(error):
                    return False
                raise
            self._metrics.index_size.set(self._dataset.count_rows())
        return True

    def _refresh(self) -> None:
        """Go on to the newest version, if that is this writer's.

        Raises:
            SinkError: Another writer has taken the table over, or it can't be read.
        """
        with self._store.reading():
            if self._dataset.latest_version == self._dataset.version:
                return
        self._latest()
        if self._store.fence(self._dataset).writer != self._name:
            raise SinkError(
                f"table.name: {self._store.name}: a second copy of this flow writes it; this one "
                "ends"
            )

    def _latest(self) -> None:
        with self._store.reading():
            self._dataset.checkout_latest()  # type: ignore[no-untyped-call]  # Lance's own gap

    def _keep_up(self) -> None:
        with self._store.writing():
            self._maintenance.run(self._dataset)

    def _await_patches(self, batches: Sequence[OutcomeBatch]) -> None:
        """Hold back a commit until the topic has its records that depend on the row before."""
        for batch in batches:
            if batch.has_patch:
                self._board.wait_for("topic", batch.lane.key, batch.end)

    def _check_keys(self) -> None:
        keys = self._dataset.to_table(columns=["key"]).column("key")
        self._metrics.index_size.set(len(keys))
        double = len(keys) - pc.count_distinct(keys.cast(pa.binary())).as_py()
        if double:
            raise SinkError(
                f"table.name: {self._store.name}: {double} keys stand in it twice, so something "
                "else has written to it; set another table.name to build it anew from the topic"
            )
