"""The table's schema, and outcomes as Arrow rows of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from operators.encoding import Encoded
    from operators.records import Lane, OutcomeBatch

__all__ = [
    "ARROW_TYPES",
    "FENCE_KEY",
    "KEY_BYTES",
    "Stamp",
    "TableRow",
    "TableSchema",
    "one_of",
    "row_key",
    "table_rows",
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


def one_of(ids: Iterable[str]) -> str:
    """The condition, in Lance's SQL, that a row is of one of those documents."""
    quoted = ", ".join("'" + identity.replace("'", "''") + "'" for identity in ids)
    return f"id IN ({quoted})"


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
    """One row to merge: a chunk of an embedding, or a tombstone.

    Attributes:
        key: The row's key.
        stamp: Which write it is of.
        chunk: The number of its chunk.
        batch: Holds the write's outcome.
        index: Where it stands in the batch.
    """

    key: bytes
    stamp: Stamp
    chunk: int
    batch: OutcomeBatch
    index: int

    @property
    def id(self) -> str:
        """The document's id."""
        return self.batch.ids[self.index]

    @property
    def encoded(self) -> Encoded | None:
        """The document's vectors; None for a deleted one."""
        return self.batch.encoded[self.index]

    @property
    def chunks(self) -> int:
        """How many rows its document has; a tombstone is one."""
        encoded = self.encoded
        return 1 if encoded is None else len(encoded.vectors)

    def with_chunk(self, chunk: int) -> TableRow:
        """The row of another chunk of its document."""
        return replace(self, key=row_key(self.id, chunk), chunk=chunk)

    @property
    def deleted(self) -> bool:
        """Whether the row is a tombstone."""
        return self.encoded is None


def winning_heads(batches: Iterable[OutcomeBatch]) -> list[TableRow]:
    """The first rows of the documents in some batches: of a document only the winning write."""
    winners: dict[str, tuple[OutcomeBatch, int]] = {}
    for batch in batches:
        for index, identity in enumerate(batch.ids):
            if index in batch.dead:
                continue
            held = winners.get(identity)
            if held is None or _beats(batch, index, held):
                winners[identity] = (batch, index)
    return [
        TableRow(row_key(identity), _stamp(batch, index), 0, batch, index)
        for identity, (batch, index) in winners.items()
    ]


def _beats(batch: OutcomeBatch, index: int, held: tuple[OutcomeBatch, int]) -> bool:
    """Whether a write wins over the one held: `Stamp.beats`, quick where both are of one batch."""
    return batch is held[0] or _stamp(batch, index).beats(_stamp(*held))


def _stamp(batch: OutcomeBatch, index: int) -> Stamp:
    return Stamp(batch.lane, batch.offsets[index], batch.event_times[index])


def table_rows(batches: Iterable[OutcomeBatch]) -> list[TableRow]:
    """The rows of all chunks of the documents in some batches: each key once."""
    heads = winning_heads(batches)
    return [head.with_chunk(chunk) for head in heads for chunk in range(head.chunks)]


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
            "id": [r.id for r in rows],
            "vector": self._vectors(rows, gone),
            "text": [None if d else _text(r) for r, d in zip(rows, gone, strict=True)],
            **self._metadata(rows, gone),
            "event_time": [r.stamp.event_time for r in rows],
            "embedded_at": [r.batch.embedded_at for r in rows],
            "model": [self.model_name] * len(rows),
            "tokens": [0 if d else _tokens(r) for r, d in zip(rows, gone, strict=True)],
            "truncated": [
                not d and r.encoded is not None and r.encoded.truncated
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

    def tombstones(self, heads: pa.Table, chunks: Sequence[int]) -> pa.Table:
        """Tombstones of chunks that documents no longer have.

        Args:
            heads: The row of each chunk's document that takes it away, of this schema.
            chunks: The number of each chunk.
        """
        emptied = ["vector", "text", "metadata", *self.columns]
        keys = [row_key(*row) for row in zip(heads.column("id").to_pylist(), chunks, strict=True)]
        changed: dict[str, Any] = {
            **{name: pa.nulls(len(heads), self.arrow.field(name).type) for name in emptied},
            "tokens": [0] * len(heads),
            "truncated": [False] * len(heads),
            "deleted": [True] * len(heads),
            "chunk": chunks,
            "key": keys,
        }
        kept = {name: heads.column(name) for name in self.arrow.names if name not in changed}
        return self._table({**kept, **changed})

    def _table(self, columns: Mapping[str, Any]) -> pa.Table:
        arrays = [
            columns[f.name]
            if isinstance(columns[f.name], pa.Array | pa.ChunkedArray)
            else pa.array(columns[f.name], f.type)
            for f in self.arrow
        ]
        return pa.Table.from_arrays(arrays, schema=self.arrow)

    def _vectors(self, rows: Sequence[TableRow], gone: Sequence[bool]) -> pa.Array:
        matrix = np.zeros((len(rows), self.dimension), np.float32)
        for index, (row, deleted) in enumerate(zip(rows, gone, strict=True)):
            encoded = row.encoded
            if not deleted and encoded is not None:
                matrix[index] = encoded.vectors[row.chunk]
        return pa.FixedSizeListArray.from_arrays(
            pa.array(matrix.reshape(-1)), self.dimension, mask=pa.array(gone, pa.bool_())
        )

    def _metadata(self, rows: Sequence[TableRow], gone: Sequence[bool]) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {
            name: [
                None
                if d or name not in r.batch.metadata.typed
                else r.batch.metadata.typed[name][r.index]
                for r, d in zip(rows, gone, strict=True)
            ]
            for name in self.columns
        }
        columns["metadata"] = [
            None if d else r.batch.metadata.rest[r.index] for r, d in zip(rows, gone, strict=True)
        ]
        return columns


def _text(row: TableRow) -> str | None:
    """The first chunk's row has the whole text, a further one its own piece."""
    text, encoded = row.batch.texts[row.index], row.encoded
    if not row.chunk or text is None or encoded is None:
        return text
    start, end = encoded.spans[row.chunk]
    return text[start:end]


def _tokens(row: TableRow) -> int:
    encoded = row.encoded
    assert encoded is not None
    return encoded.tokens if not row.chunk else encoded.chunk_tokens[row.chunk]
