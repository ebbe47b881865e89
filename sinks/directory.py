"""The directory: which table each document is in, where a flow writes several.

A deletion says nothing but a key, and a document may go from one table to another. So beside the
tables stands one that has, for each document, the name of its table and the write that put it
there. It is written last: its fence row has the progress of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

import pyarrow as pa

from operators.routing import TABLE
from sinks.schema import TableSchema, stamps

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sinks.rows import Rows, Stamp

__all__ = ["DirectorySchema", "Entry", "RoutedSchema", "Shares", "entries", "shares"]

COLUMN: Final = "table"

_KEPT: Final = frozenset(
    {
        *("id", COLUMN, "metadata", "event_time", "embedded_at", "source_topic"),
        *("source_partition", "source_offset", "deleted", "key"),
    }
)


class Entry(NamedTuple):
    """Where a document is.

    Attributes:
        table: The name of its table; None where it is deleted.
        stamp: Which write has put it there, or deleted it.
    """

    table: str | None
    stamp: Stamp


@dataclass(frozen=True)
class RoutedSchema(TableSchema):
    """The columns of each of several tables; rows come with the name of theirs, if any."""

    def rows(self, rows: Sequence[Rows]) -> pa.Table:
        """Rows as an Arrow table, with a last column `operators.routing.TABLE`."""
        names: list[str | None] = []
        for own in rows:
            held = own.batch.metadata.typed.get(TABLE)
            names += [None] * len(own) if held is None else own.of(held)
        return super().rows(rows).append_column(TABLE, pa.array(names, pa.string()))


@dataclass(frozen=True)
class DirectorySchema(TableSchema):
    """The columns of the directory: those of a table that tell of a write, and the table's name."""

    dimension: int = 0
    columns: Mapping[str, str] = field(default_factory=lambda: {COLUMN: "string"})

    has_vectors: ClassVar[bool] = False

    @cached_property
    def arrow(self) -> pa.Schema:
        """The Arrow schema."""
        # One that says the same of topics; the columns themselves are taken from there.
        whole = TableSchema(0, self.columns, several_topics=self.several_topics).arrow
        return pa.schema([own for own in whole if own.name in _KEPT])

    def written(self, heads: pa.Table, tables: Sequence[str | None]) -> pa.Table:
        """The rows of writes.

        Args:
            heads: The first row of each document that is written, of a table's schema.
            tables: Where each of them is now.
        """
        names = pa.array(tables, pa.string())
        columns = {
            COLUMN: names,
            "metadata": pa.nulls(len(heads), pa.string()),
            "deleted": names.is_null(),
        }
        return pa.Table.from_arrays(
            [
                columns[own.name] if own.name in columns else heads.column(own.name)
                for own in self.arrow
            ],
            schema=self.arrow,
        )


def entries(rows: pa.Table) -> dict[str, Entry]:
    """Where documents are, by the directory's rows of them."""
    ids, tables = rows.column("id").to_pylist(), rows.column(COLUMN).to_pylist()
    return dict(zip(ids, map(Entry, tables, stamps(rows)), strict=True))


@dataclass(frozen=True)
class Shares:
    """What each table gets of some rows, as indices of those.

    Attributes:
        leaving: For each table the first rows of documents that another one gets.
        merged: For each table the rows that it gets.
        heads: The first rows of all documents whose write has won.
        tables: Where each of those documents is now; None for a deleted one.
    """

    leaving: Mapping[str, Sequence[int]]
    merged: Mapping[str, Sequence[int]]
    heads: Sequence[int]
    tables: Sequence[str | None]


def shares(rows: pa.Table, held: Mapping[str, Entry]) -> Shares:
    """Share rows out among tables.

    Args:
        rows: All chunks of each document, as `RoutedSchema.rows` makes them.
        held: Where these documents are.
    """
    ids, chunks = rows.column("id").to_pylist(), rows.column("chunk").to_pylist()
    named = rows.column(TABLE).to_pylist()
    leaving: dict[str, list[int]] = {}
    heads: list[int] = []
    tables: list[str | None] = []
    targets: dict[str, str | None] = {}
    for index, stamp in enumerate(stamps(rows)):
        identity, table = ids[index], named[index]
        entry = held.get(identity)
        if chunks[index] or (entry is not None and not stamp.beats(entry.stamp)):
            continue
        before = None if entry is None else entry.table
        if before is not None and table not in {None, before}:
            leaving.setdefault(before, []).append(index)
        heads.append(index)
        tables.append(table)
        targets[identity] = table or before
    return Shares(leaving, _grouped(ids, targets), heads, tables)


def _grouped(ids: Iterable[str], targets: Mapping[str, str | None]) -> dict[str, list[int]]:
    merged: dict[str, list[int]] = {}
    for index, identity in enumerate(ids):
        target = targets.get(identity)
        if target is not None:
            merged.setdefault(target, []).append(index)
    return merged
