from __future__ import annotations

import numpy as np
import pyarrow as pa

from operators.columns import COLUMN_TYPES
from sinks.rows import row_key, table_rows
from sinks.schema import ARROW_TYPES, TableSchema
from tests.samples import (
    DIMENSION,
    Fields,
    embedding,
    outcomes,
    tombstone,
)

COLUMNS = {"price": "float64", "category": "string"}
TIME = pa.timestamp("ms", tz="UTC")


def test_columns_are_the_contracts() -> None:
    """Names, types and order of the columns are what the contract promises."""
    contract = [
        ("id", pa.string()),
        ("vector", pa.list_(pa.float32(), DIMENSION)),
        ("text", pa.string()),
        ("price", pa.float64()),
        ("category", pa.string()),
        ("metadata", pa.string()),
        ("event_time", TIME),
        ("embedded_at", TIME),
        ("model", pa.string()),
        ("tokens", pa.int32()),
        ("truncated", pa.bool_()),
        ("source_partition", pa.int32()),
        ("source_offset", pa.int64()),
        ("deleted", pa.bool_()),
        ("chunk", pa.int32()),
        ("chunk_start", pa.int32()),
        ("chunk_end", pa.int32()),
        ("chunk_hash", pa.binary(16)),
        ("key", pa.binary(16)),
    ]
    arrow = TableSchema(DIMENSION, COLUMNS).arrow
    assert [(f.name, f.type) for f in arrow] == contract


def test_several_topics_add_one_column() -> None:
    """Where offsets of several topics meet, a column tells the topics apart."""
    one = set(TableSchema(DIMENSION).arrow.names)
    several = set(TableSchema(DIMENSION, several_topics=True).arrow.names)
    assert several - one == {"source_topic"}
    assert one <= several


def test_every_column_type_has_an_arrow_type() -> None:
    """What the decoder takes as a column's type, the table can store."""
    assert set(ARROW_TYPES) == set(COLUMN_TYPES)


def test_values_stand_in_their_columns() -> None:
    """A document's row has its values; the typed ones leave `metadata`."""
    schema = TableSchema(DIMENSION, COLUMNS, "some/model")
    metadata = Fields('{"price":1.5,"x":1}', '{"x":1}', {"price": 1.5, "category": None})
    row = embedding("ä'", "the text", time_ms=99, metadata=metadata)
    [found] = schema.rows(table_rows([outcomes([row], 12)])).to_pylist()
    assert row.encoded is not None
    assert found.pop("vector") == row.encoded.vectors[0].tolist()
    assert found.pop("event_time").timestamp() == 0.099
    assert found.pop("embedded_at").timestamp() == 1
    assert found == {
        "id": "ä'",
        "text": "the text",
        "price": 1.5,
        "category": None,
        "metadata": '{"x":1}',
        "model": "some/model",
        "tokens": row.encoded.tokens,
        "truncated": False,
        "source_partition": 0,
        "source_offset": 12,
        "deleted": False,
        "chunk": 0,
        "chunk_start": 0,
        "chunk_end": 8,
        "chunk_hash": None,
        "key": row_key("ä'"),
    }


def test_vectors_are_bit_identical() -> None:
    """A vector comes out of Arrow with the very bits that went in, the odd ones too."""
    vector = np.array([[0.0, -0.0, 1e-45, -1.1754944e-38, 3.4e38, 1 / 3, 1, -1]], np.float32)
    row = embedding("a")
    assert row.encoded is not None
    row.encoded.vectors[:] = vector
    table = TableSchema(DIMENSION).rows(table_rows([outcomes([tombstone("b"), row])]))
    assert table.column("vector")[1].values.to_numpy().tobytes() == vector.tobytes()


def test_tombstones_hold_nothing() -> None:
    """A deleted document's row has no text, no vector, no metadata."""
    schema = TableSchema(DIMENSION, COLUMNS)
    [found] = schema.rows(table_rows([outcomes([tombstone("a", 7)], 3)])).to_pylist()
    kept = {name for name, value in found.items() if value is not None}
    gone = {"text", "vector", "metadata", *COLUMNS}
    assert gone.isdisjoint(kept)
    assert (found["id"], found["deleted"], found["source_offset"]) == ("a", True, 3)


def test_chunks_are_rows() -> None:
    """Each chunk is a row with its own vector and piece of text; the first has the whole text."""
    row = embedding("a", "abcdefghi", 3)
    rows = table_rows([outcomes([row], 5)])
    found = TableSchema(DIMENSION).rows(rows).to_pylist()
    assert row.encoded is not None
    assert [r["chunk"] for r in found] == [0, 1, 2]
    assert [r["text"] for r in found] == ["abcdefghi", "def", "ghi"]
    assert [r["vector"] for r in found] == row.encoded.vectors.tolist()
    assert [r["tokens"] for r in found] == [row.encoded.tokens, *row.encoded.chunk_tokens[1:]]
    assert {r["source_offset"] for r in found} == {5}


def test_fence_row() -> None:
    """The fence row has null id, zero key, `deleted`, and its progress in `metadata`."""
    [row] = TableSchema(DIMENSION, COLUMNS, "m").fence('{"a":1}', 6, 0).to_pylist()
    assert (row["id"], row["key"], row["deleted"]) == (None, bytes(16), True)
    assert (row["metadata"], row["source_offset"]) == ('{"a":1}', 6)
    assert row["vector"] is None
