"""The table's schema, and outcomes as Arrow rows of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from operators.records import Lane, Outcome, OutcomeBatch, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "ARROW_TYPES",
    "FENCE_KEY",
    "KEY_BYTES",
    "Stamp",
    "TableRow",
    "TableSchema",
    "row_key",
    "winning_heads",
]

ARROW_TYPES: Final[Mapping[str, pa.DataType]] = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
}
"""The Arrow type of each type that a metadata column can have."""

KEY_BYTES: Final = 16

FENCE_KEY: Final = bytes(KEY_BYTES)
"""The key of the fence row, which no document can have but by a chance of 2^-128."""

_TIME: Final = pa.timestamp("ms", tz="UTC")


def row_key(identity: str, chunk: int = 0) -> bytes:
    """The key of a document's chunk: 16 bytes, which merge twice as fast as the id itself."""
    salt = chunk.to_bytes(4, "little") if chunk else b""
    return blake2b(identity.encode(), digest_size=KEY_BYTES, salt=salt).digest()


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which write a row is of."""

    lane: Lane
    offset: int
    event_time: int

    def beats(self, other: Stamp) -> bool:
        """Whether this write wins over another of the same document.

        Within a lane the later offset wins; across lanes, after a topic was repartitioned, the
        later timestamp does.
        """
        if self.lane == other.lane:
            return self.offset > other.offset
        mine = (self.event_time, self.lane.partition, self.lane.topic)
        return mine > (other.event_time, other.lane.partition, other.lane.topic)


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row to merge: a chunk of an embedding, or a tombstone."""

    key: bytes
    stamp: Stamp
    embedded_at: int
    chunk: int
    row: Row

    @property
    def chunks(self) -> int:
        """How many rows its document has; a tombstone is one."""
        return 1 if self.row.encoded is None else len(self.row.encoded.vectors)

    def with_chunk(self, chunk: int) -> TableRow:
        """The row of another chunk of its document."""
        return replace(self, key=row_key(self.row.id, chunk), chunk=chunk)

    @property
    def deleted(self) -> bool:
        """Whether the row is a tombstone: of its document, or of a chunk that it no longer has."""
        encoded = self.row.encoded
        return encoded is None or self.chunk >= len(encoded.vectors)


def winning_heads(batches: Iterable[OutcomeBatch]) -> list[TableRow]:
    """The first rows of the documents in some batches: of a document only the winning write."""
    winners: dict[str, TableRow] = {}
    for batch in batches:
        for offset, row in zip(batch.offsets, batch.rows, strict=True):
            if row.outcome is Outcome.DEAD_LETTER:
                continue
            stamp = Stamp(batch.lane, offset, row.event_time)
            fresh = TableRow(row_key(row.id), stamp, batch.embedded_at, 0, row)
            held = winners.get(row.id)
            if held is None or stamp.beats(held.stamp):
                winners[row.id] = fresh
    return list(winners.values())


@dataclass(frozen=True)
class TableSchema:
    """The columns of the table, and the guard that lets a write win.

    Args:
        dimension: Numbers in a vector.
        columns: Metadata fields kept as typed columns, with their types.
        model_name: Written to each row.
        several_topics: Whether offsets of several topics meet in the table; a further column
            `source_topic` then tells them apart.
    """

    dimension: int
    columns: Mapping[str, str] = field(default_factory=dict)
    model_name: str = ""
    several_topics: bool = False

    @cached_property
    def arrow(self) -> pa.Schema:
        """The Arrow schema."""
        typed = [pa.field(name, ARROW_TYPES[kind]) for name, kind in self.columns.items()]
        topic = [pa.field("source_topic", pa.string())] if self.several_topics else []
        return pa.schema(
            [
                pa.field("id", pa.string()),
                pa.field("vector", pa.list_(pa.float32(), self.dimension)),
                pa.field("text", pa.string()),
                *typed,
                pa.field("metadata", pa.string()),
                pa.field("event_time", _TIME),
                pa.field("embedded_at", _TIME),
                pa.field("model", pa.string()),
                pa.field("tokens", pa.int32()),
                pa.field("truncated", pa.bool_()),
                *topic,
                pa.field("source_partition", pa.int32()),
                pa.field("source_offset", pa.int64()),
                pa.field("deleted", pa.bool_()),
                pa.field("chunk", pa.int32()),
                pa.field("key", pa.binary(KEY_BYTES), nullable=False),
            ]
        )

    @property
    def guard(self) -> str:
        """The predicate under which a merged row replaces the one with its key.

        The same rule as `Stamp.beats`, and always true for the fence row: concurrent merges
        then conflict on it, and Lance tries the later one again on the new state.
        """
        same = "source.source_partition = target.source_partition"
        tie = "source.source_partition > target.source_partition"
        if self.several_topics:
            topics = "source.source_topic = target.source_topic"
            later = "source.source_topic > target.source_topic"
            tie = f"({tie} OR ({same} AND {later}))"
            same = f"({same} AND {topics})"
        return (
            "source.id IS NULL OR "
            f"({same} AND source.source_offset > target.source_offset) OR "
            f"(NOT {same} AND (source.event_time > target.event_time OR "
            f"(source.event_time = target.event_time AND {tie})))"
        )

    def rows(self, rows: Sequence[TableRow]) -> pa.Table:
        """Rows as an Arrow table; vectors are copied as blocks, never number by number."""
        gone = [r.deleted for r in rows]
        columns: dict[str, Any] = {
            "id": [r.row.id for r in rows],
            "vector": self._vectors(rows, gone),
            "text": [None if d else _text(r) for r, d in zip(rows, gone, strict=True)],
            **self._metadata(rows, gone),
            "event_time": [r.row.event_time for r in rows],
            "embedded_at": [r.embedded_at for r in rows],
            "model": [self.model_name] * len(rows),
            "tokens": [0 if d else _tokens(r) for r, d in zip(rows, gone, strict=True)],
            "truncated": [
                not d and r.row.encoded is not None and r.row.encoded.truncated
                for r, d in zip(rows, gone, strict=True)
            ],
            "source_topic": [r.stamp.lane.topic for r in rows],
            "source_partition": [r.stamp.lane.partition for r in rows],
            "source_offset": [r.stamp.offset for r in rows],
            "deleted": gone,
            "chunk": [r.chunk for r in rows],
            "key": [r.key for r in rows],
        }
        return self._table(columns)

    def fence(self, metadata: str, sequence: int, now_ms: int) -> pa.Table:
        """The fence row.

        Args:
            metadata: The table's progress, as JSON.
            sequence: Another number than in the row before, so that the row really changes.
            now_ms: When, in milliseconds since the epoch.
        """
        columns: dict[str, Any] = {name: [None] for name in self.columns}
        columns |= {
            "id": [None],
            "vector": pa.nulls(1, pa.list_(pa.float32(), self.dimension)),
            "text": [None],
            "metadata": [metadata],
            "event_time": [0],
            "embedded_at": [now_ms],
            "model": [self.model_name],
            "tokens": [0],
            "truncated": [False],
            "source_topic": [""],
            "source_partition": [-1],
            "source_offset": [sequence],
            "deleted": [True],
            "chunk": [0],
            "key": [FENCE_KEY],
        }
        return self._table(columns)

    def _table(self, columns: Mapping[str, Any]) -> pa.Table:
        arrays = [
            columns[f.name]
            if isinstance(columns[f.name], pa.Array)
            else pa.array(columns[f.name], f.type)
            for f in self.arrow
        ]
        return pa.Table.from_arrays(arrays, schema=self.arrow)

    def _vectors(self, rows: Sequence[TableRow], gone: Sequence[bool]) -> pa.Array:
        matrix = np.zeros((len(rows), self.dimension), np.float32)
        for index, (row, deleted) in enumerate(zip(rows, gone, strict=True)):
            if not deleted and row.row.encoded is not None:
                matrix[index] = row.row.encoded.vectors[row.chunk]
        return pa.FixedSizeListArray.from_arrays(
            pa.array(matrix.reshape(-1)), self.dimension, mask=pa.array(gone, pa.bool_())
        )

    def _metadata(self, rows: Sequence[TableRow], gone: Sequence[bool]) -> dict[str, list[Any]]:
        held = [None if d else r.row.metadata for r, d in zip(rows, gone, strict=True)]
        columns: dict[str, list[Any]] = {
            name: [m.typed.get(name) if m else None for m in held] for name in self.columns
        }
        columns["metadata"] = [m.rest if m else None for m in held]
        return columns


def _text(row: TableRow) -> str | None:
    """The first chunk's row has the whole text, a further one its own piece."""
    text, encoded = row.row.text, row.row.encoded
    if not row.chunk or text is None or encoded is None:
        return text
    start, end = encoded.spans[row.chunk]
    return text[start:end]


def _tokens(row: TableRow) -> int:
    encoded = row.row.encoded
    assert encoded is not None
    return encoded.tokens if not row.chunk else encoded.chunk_tokens[row.chunk]
