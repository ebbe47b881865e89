"""The table's schema, and outcomes as Arrow rows of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

import numpy as np
import pyarrow as pa

from operators.encoding import HASH_BYTES
from operators.records import Lane
from sinks.rows import KEY_BYTES, Stamp, row_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from operators.encoding import Encoded
    from sinks.join import Join
    from sinks.rows import Rows

__all__ = ["ARROW_TYPES", "CHUNK_COLUMNS", "FENCE_KEY", "TableSchema", "one_of", "stamps"]

Value = TypeVar("Value")

ARROW_TYPES: Final[Mapping[str, pa.DataType]] = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
}
"""The Arrow type of each type that a metadata column can have."""

FENCE_KEY: Final = bytes(KEY_BYTES)
"""The key of the fence row, which no document can have but by a chance of 2^-128."""

_TIME: Final = pa.timestamp("ms", tz="UTC")

CHUNK_COLUMNS: Final = (
    pa.field("chunk_start", pa.int32()),
    pa.field("chunk_end", pa.int32()),
    pa.field("chunk_hash", pa.binary(HASH_BYTES)),
)
"""Where a chunk stands in its text, and the hash of its tokens; null in rows of tombstones, and in
those that an older release wrote."""


def one_of(ids: Iterable[str]) -> str:
    """The condition, in Lance's SQL, that a row is of one of those documents."""
    quoted = ", ".join("'" + identity.replace("'", "''") + "'" for identity in ids)
    return f"id IN ({quoted})"


def stamps(rows: pa.Table) -> list[Stamp]:
    """Which write each row is of, by its columns `TableSchema.stamp_columns`."""
    topics = [""] * len(rows)
    if "source_topic" in rows.schema.names:
        topics = rows.column("source_topic").to_pylist()
    # As a number: not all that fit into the column are dates that Python knows.
    times = rows.column("event_time").cast(pa.int64()).to_pylist()
    lanes = map(Lane, topics, rows.column("source_partition").to_pylist())
    return list(map(Stamp, lanes, rows.column("source_offset").to_pylist(), times))


@dataclass(frozen=True)
class TableSchema:
    """The columns of the table, and the guard that lets a write win.

    Args:
        dimension: Numbers in a vector.
        columns: Metadata fields kept as typed columns, with their types.
        model_name: Written to each row.
        several_topics: Whether offsets of several topics meet in the table; a further column
            `source_topic` then tells them apart.
        join: How the writes of one key become its row, where none replaces all of it.
        replaces: Whether a later write always replaces an earlier one, whatever their times.
    """

    dimension: int
    columns: Mapping[str, str] = field(default_factory=dict)
    model_name: str = ""
    several_topics: bool = False
    join: Join | None = None
    replaces: bool = False

    has_vectors: ClassVar[bool] = True
    """Whether its rows are documents, with vectors and chunks."""

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
                *CHUNK_COLUMNS,
                pa.field("key", pa.binary(KEY_BYTES), nullable=False),
            ]
        )

    @property
    def stamp_columns(self) -> list[str]:
        """The columns that say which write a row is of."""
        topic = ["source_topic"] if self.several_topics else []
        return ["source_partition", "source_offset", "event_time", *topic]

    @property
    def guard(self) -> str:
        """The predicate under which a merged row replaces the one with its key.

        The same rule as `Stamp.beats`, and always true for the fence row: concurrent merges
        then conflict on it, and Lance tries the later one again on the new state. Joined rows
        hold what the row before them did.
        """
        if self.join is not None or self.replaces:
            return "true"
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

    def rows(self, rows: Sequence[Rows]) -> pa.Table:
        """Rows as an Arrow table; vectors are copied as blocks, never number by number."""
        ids = _joined(r.of(r.batch.ids) for r in rows)
        chunks = _joined(r.chunks for r in rows)
        encoded = _joined(r.of(r.batch.encoded) for r in rows)
        gone = [one is None for one in encoded]
        columns: dict[str, Any] = {
            "id": ids,
            "vector": self._vectors(encoded, chunks, gone),
            "text": _texts(_joined(r.of(r.batch.texts) for r in rows), encoded, chunks),
            **self._metadata(rows),
            "event_time": _joined(r.of(r.batch.event_times) for r in rows),
            "embedded_at": _joined(repeat(r.batch.embedded_at, len(r)) for r in rows),
            "model": [self.model_name] * len(ids),
            "tokens": _tokens(encoded, chunks),
            "truncated": [one is not None and one.truncated for one in encoded],
            "source_topic": _joined(repeat(r.batch.lane.topic, len(r)) for r in rows),
            "source_partition": _joined(repeat(r.batch.lane.partition, len(r)) for r in rows),
            "source_offset": _joined(r.of(r.batch.offsets) for r in rows),
            "deleted": gone,
            "chunk": chunks,
            **_places(encoded, chunks),
            "key": list(map(row_key, ids, chunks)),
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
            **{field.name: [None] for field in CHUNK_COLUMNS},
            "key": [FENCE_KEY],
        }
        return self._table(columns)

    def tombstones(self, heads: pa.Table, chunks: Sequence[int]) -> pa.Table:
        """Tombstones of chunks that documents no longer have.

        Args:
            heads: The row of each chunk's document that takes it away, of this schema.
            chunks: The number of each chunk.
        """
        places = [field.name for field in CHUNK_COLUMNS]
        emptied = ["vector", "text", "metadata", *self.columns, *places]
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

    def _vectors(
        self, encoded: Sequence[Encoded | None], chunks: Sequence[int], gone: Sequence[bool]
    ) -> pa.Array:
        nothing = np.zeros((1, self.dimension), np.float32)
        if any(chunks):
            blocks = [
                nothing if one is None else one.vectors[chunk : chunk + 1]
                for one, chunk in zip(encoded, chunks, strict=True)
            ]
        else:
            blocks = [nothing if one is None else one.vectors[:1] for one in encoded]
        numbers = np.concatenate(blocks).reshape(-1) if blocks else nothing[:0].reshape(-1)
        return pa.FixedSizeListArray.from_arrays(
            pa.array(numbers), self.dimension, mask=pa.array(gone, pa.bool_())
        )

    def _metadata(self, rows: Sequence[Rows]) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {
            name: _joined(
                r.of(r.batch.metadata.typed[name])
                if name in r.batch.metadata.typed
                else repeat(None, len(r))
                for r in rows
            )
            for name in self.columns
        }
        columns["metadata"] = _joined(r.of(r.batch.metadata.rest) for r in rows)
        return columns


def _joined(columns: Iterable[Iterable[Value]]) -> list[Value]:
    return list(chain.from_iterable(columns))


def _texts(
    texts: list[str | None], encoded: Sequence[Encoded | None], chunks: Sequence[int]
) -> list[str | None]:
    """The first chunk's row has the whole text, a further one its own piece."""
    for index in _further(chunks):
        text, own = texts[index], encoded[index]
        assert text is not None
        assert own is not None
        start, end = own.spans[chunks[index]]
        texts[index] = text[start:end]
    return texts


def _tokens(encoded: Sequence[Encoded | None], chunks: Sequence[int]) -> list[int]:
    """The first chunk's row has those of the whole text, a further one its own."""
    tokens = [0 if one is None else one.tokens for one in encoded]
    for index in _further(chunks):
        own = encoded[index]
        assert own is not None
        tokens[index] = own.chunk_tokens[chunks[index]]
    return tokens


def _places(encoded: Sequence[Encoded | None], chunks: Sequence[int]) -> dict[str, list[Any]]:
    """Each chunk's range of characters, and the hash of its tokens if that is told."""
    spans: list[tuple[int | None, int | None]] = [(None, None)] * len(encoded)
    hashes: list[bytes | None] = [None] * len(encoded)
    for index, (one, chunk) in enumerate(zip(encoded, chunks, strict=True)):
        if one is not None:
            spans[index] = one.spans[chunk]
            hashes[index] = one.hashes[chunk] if one.hashes else None
    starts = [start for start, _ in spans]
    return {
        "chunk_start": starts,
        "chunk_end": [end for _, end in spans],
        "chunk_hash": hashes,
    }


def _further(chunks: Sequence[int]) -> list[int]:
    """The indices of rows that are not their document's first."""
    return [index for index, chunk in enumerate(chunks) if chunk] if any(chunks) else []
