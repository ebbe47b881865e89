"""Tables for the tests of the table sink."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recovery.progress import Board
from recovery.watchdog import Watchdog
from sinks.directory import RoutedSchema
from sinks.maintenance import Upkeep
from sinks.pace import Pace
from sinks.protocol import Opened, Written
from sinks.routed import RoutedStore
from sinks.rows import table_rows
from sinks.schema import TableSchema
from sinks.store import TableStore
from sinks.table import TablePartitionSink
from sinks.writer import TableWriter
from telemetry.metrics import Metrics
from tests.samples import DIMENSION, LANE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pyarrow as pa

    from operators.records import OutcomeBatch

NEVER = Upkeep(index_rows=1 << 40, tombstone_retention_s=1e9)
"""Leaves the table alone."""


def store_in(
    folder: Path | str,
    *,
    dimension: int = DIMENSION,
    columns: Mapping[str, str] | None = None,
    fingerprint: str = "f1",
    several_topics: bool = False,
) -> TableStore:
    """A table's place in a folder; nothing is made yet."""
    schema = TableSchema(dimension, columns or {}, "some/model", several_topics)
    return TableStore(str(folder), "documents", schema, "some/model", fingerprint)


def routed_in(
    folder: Path | str,
    *,
    max_tables: int = 100,
    columns: Mapping[str, str] | None = None,
    several_topics: bool = False,
) -> RoutedStore:
    """The places of several tables in a folder; nothing is made yet."""
    schema = RoutedSchema(DIMENSION, columns or {}, "some/model", several_topics)
    return RoutedStore(str(folder), "docs_{/tenant}", schema, "some/model", "f1", max_tables)


@dataclass
class LocalWriter:
    """The writer in this process, with its upkeep after each commit."""

    writer: TableWriter

    def __post_init__(self) -> None:
        self.opened = Opened(self.writer.fence.progress, self.writer.rows)

    def commit(self, rows: pa.Table, progress: Mapping[str, int]) -> Written:
        """Commit."""
        self.writer.commit(rows, progress)
        self.writer.keep_up()
        return Written(self.writer.rows, 0.0)

    def close(self) -> None:
        """Nothing to let go of."""


@dataclass
class Table:
    """A table with a writer in this process, and the sink's part before it.

    Attributes:
        store: The table.
        upkeep: How it is kept.
        max_chunks: The most rows a document can have.
        board: Where progress is posted.
        metrics: Where it is counted.
    """

    store: TableStore
    upkeep: Upkeep = NEVER
    max_chunks: int = 1
    board: Board = field(default_factory=Board)
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.store.ensure()
        self.writer = TableWriter(self.store, self.upkeep, self.max_chunks)

    def commit(self, *batches: OutcomeBatch) -> None:
        """Commit batches together, without a part."""
        progress = {batch.lane.key: batch.end for batch in batches}
        self.writer.commit(self.store.schema.rows(table_rows(batches)), progress)

    def part(self, pace: Pace | None = None) -> TablePartitionSink:
        """The sink's part around the writer."""
        writer, schema = LocalWriter(self.writer), self.store.schema
        pace = pace or Pace()
        return TablePartitionSink(writer, schema, pace, self.board, Watchdog(), self.metrics)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The table without its fence row, by id and chunk."""
        return rows_of(self.store)

    @property
    def progress(self) -> Mapping[str, int]:
        """What the fence row says of the lane."""
        return self.store.progress([LANE.key])


def rows_of(store: TableStore) -> list[dict[str, Any]]:
    """A table's rows without the fence row, by id and chunk."""
    found = store.open().to_table().to_pylist()
    rows = [row for row in found if row["id"] is not None]
    return sorted(rows, key=lambda row: (row["id"], row["chunk"]))


def live(store: TableStore) -> dict[tuple[str, int], str]:
    """What a reader sees: the text of each document's chunk."""
    return {(r["id"], r["chunk"]): r["text"] for r in rows_of(store) if not r["deleted"]}
