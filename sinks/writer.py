"""The table's single writer: merges outcomes and progress, and notices another writer."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from operators.clock import wall_ms
from sinks.chunks import has_chunks, settled
from sinks.errors import SECOND_COPY, SinkError
from sinks.join import joined
from sinks.maintenance import Maintenance
from sinks.schema import one_of
from sinks.store import CONFLICT_RETRIES, LANCE_ERRORS, is_conflict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sinks.fence import Fence
    from sinks.maintenance import Upkeep
    from sinks.store import TableStore

__all__ = ["TableWriter"]


class TableWriter:
    """Writes the table; only one may, and a second one ends the first.

    Args:
        store: The table.
        upkeep: How it is kept.
        max_chunks: The most rows a document can have.

    Raises:
        SinkError: The table can't be opened, or holds a key twice.

    Attributes:
        fence: The fence row of its last commit.
        rows: The table's rows, tombstones and the fence row included.
    """

    def __init__(self, store: TableStore, upkeep: Upkeep, max_chunks: int) -> None:
        self._store = store
        self._name = uuid.uuid4().hex
        self._maintenance = Maintenance(store, upkeep)
        self._maintenance.sweep()
        self._dataset = store.open()
        with store.reading():
            self.rows = self._check_keys()
            self._chunked = store.schema.has_vectors and (
                max_chunks > 1 or has_chunks(self._dataset)
            )
        self.fence: Fence = self._take_over()

    @property
    def busy(self) -> bool:
        """Whether upkeep goes on beside, which costs a core and memory."""
        return self._maintenance.busy

    def commit(
        self,
        rows: pa.Table,
        progress: Mapping[str, int],
        *,
        seeded: int | None = None,
        tables: Mapping[str, int] | None = None,
        anew: bool = False,
    ) -> None:
        """Merge rows and progress in one commit, on the table's newest version.

        Lance itself would retry a conflicting merge and not ask whose the newer version is.

        Args:
            rows: Of the table's schema, each key once, a document's chunks in their order.
            progress: The next offset of each lane that they bring on, by the lane's key.
            seeded: See `sinks.fence.Fence.after`, as of the further ones.
            tables: See there.
            anew: See there.

        Raises:
            SinkError: The table can't be written, or another writer has taken it over.
        """
        for _ in range(CONFLICT_RETRIES):
            self.confirm()
            fence = self.fence.after(self._name, progress, seeded=seeded, tables=tables, anew=anew)
            if self._try_merge(rows, fence):
                self.fence = fence
                return
        raise SinkError(f"table.name: {self._store.name}: others write to it without a pause")

    def confirm(self) -> None:
        """See that this is still the table's writer, and go on to its newest version.

        Raises:
            SinkError: Another writer has taken the table over, or it can't be read.
        """
        with self._store.reading():
            if self._dataset.latest_version == self._dataset.version:
                return
        self._latest()
        if self._store.fence(self._dataset).writer != self._name:
            raise SinkError(
                f"table.name: {self._store.name}: {SECOND_COPY} writes it; this one ends"
            )

    def remove(self, condition: str) -> None:
        """Delete rows, not as documents are deleted, but as if they had never been.

        Raises:
            SinkError: The table can't be written, or another writer has taken it over.
        """
        self.confirm()
        with self._store.writing():
            self._dataset.delete(condition)
            self.rows = self._dataset.count_rows()

    def rows_of(self, condition: str, columns: Sequence[str]) -> pa.Table:
        """The table's rows that meet a condition, as this writer has left them.

        Raises:
            SinkError: The table can't be read.
        """
        with self._store.reading():
            return self._dataset.to_table(columns=list(columns), filter=condition)

    def keep_up(self) -> None:
        """Do what upkeep is due.

        Raises:
            SinkError: The table can't be written.
        """
        with self._store.writing():
            self._maintenance.run(self._dataset)

    def index_builds(self) -> tuple[float, ...]:
        """Seconds that each index took which was made or extended since the last call."""
        return self._maintenance.index_builds()

    def idle(self) -> None:
        """Nothing to commit: see whether this is still the writer, and keep the table up.

        Raises:
            SinkError: Another writer has taken the table over, or it can't be kept up.
        """
        self.confirm()
        self.keep_up()

    def _take_over(self) -> Fence:
        """Write this writer's name into the fence: the one before it sees that and ends."""
        for _ in range(CONFLICT_RETRIES):
            held = self._store.fence(self._dataset)
            fence = held.after(self._name, {}, seeded=held.seeded)
            if self._try_merge(self._store.schema.arrow.empty_table(), fence):
                return fence
            self._latest()
        raise SinkError(f"table.name: {self._store.name}: others write to it without a pause")

    def _try_merge(self, rows: pa.Table, fence: Fence) -> bool:
        """Commit rows and a fence; whether no one else committed meanwhile."""
        schema = self._store.schema
        with self._store.writing():
            if schema.join is not None:
                rows = joined(self._held(rows), rows, schema.join)
            elif self._chunked:
                rows = settled(self._dataset, schema, rows)
            mark = schema.fence(fence.json(), fence.sequence, wall_ms())
            merged = pa.concat_tables([rows, mark])
            try:
                (
                    self._dataset.merge_insert("key")
                    .when_matched_update_all(schema.guard)
                    .when_not_matched_insert_all()
                    .use_index(False)  # noqa: FBT003 - Lance's own signature
                    .conflict_retries(0)
                    .execute(merged)
                )
            except LANCE_ERRORS as error:
                if is_conflict(error):
                    return False
                raise
            self.rows = self._dataset.count_rows()
        return True

    def _held(self, rows: pa.Table) -> pa.Table:
        """The table's rows of the same documents."""
        ids = set(rows.column("id").to_pylist())
        if not ids:
            return rows
        return self._dataset.to_table(filter=one_of(ids)).select(rows.schema.names)

    def _latest(self) -> None:
        with self._store.reading():
            self._dataset.checkout_latest()  # type: ignore[no-untyped-call]  # Lance's own gap

    def _check_keys(self) -> int:
        """How many rows there are."""
        keys = self._dataset.to_table(columns=["key"]).column("key")
        double = len(keys) - pc.count_distinct(keys.cast(pa.binary())).as_py()
        if double:
            raise SinkError(
                f"table.name: {self._store.name}: {double} keys stand in it twice, so something "
                "else has written to it; set another table.name to build it anew from the topic"
            )
        return len(keys)
