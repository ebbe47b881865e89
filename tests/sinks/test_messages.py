from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pytest

from headrace.v1.embedding_pb2 import Embedding
from operators.partitions import partition_of
from operators.records import Kind, Lane, Original
from operators.views import MOVED
from sinks.messages import MessageEncoder, ViewMessages
from tests.samples import DIMENSION, Fields, Row, dead_letter, embedding, outcomes, tombstone

if TYPE_CHECKING:
    from sinks.messages import OutputHeaders

LANE = Lane("docs", 3)


def encoder(dtype: Literal["float32", "float16"] = "float32") -> MessageEncoder:
    """Writes records to two topics."""
    return MessageEncoder("embeddings", "dead", dtype, "some/model", "f1")


class Made(NamedTuple):
    """A record with names for its parts."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: OutputHeaders
    partition: int
    timestamp: int


def only(row: Row, writer: MessageEncoder, *, offset: int = 0, embedded_at: int = 0) -> Made:
    """The record of one outcome."""
    batch = outcomes([row], offset, lane=LANE, embedded_at=embedded_at)
    [record] = writer.records(batch)
    return Made(*record)


def test_embedding() -> None:
    """Every field of the contract's message holds the outcome's value."""
    row = embedding("ä", "words", time_ms=-3, metadata=Fields('{"a":1}', "{}", {"a": 1}))
    assert row.encoded is not None
    record = only(row, encoder(), offset=42, embedded_at=99)
    assert (record.topic, record.key) == ("embeddings", "ä".encode())
    assert record.value is not None
    message = Embedding.FromString(record.value)
    assert message.id == "ä"
    assert (message.dtype, message.dimension) == ("float32", DIMENSION)
    assert (message.model.name, message.model.fingerprint) == ("some/model", "f1")
    assert (message.event_time_ms, message.embedded_at_ms) == (-3, 99)
    source = message.source
    assert (source.topic, source.partition, source.offset) == ("docs", 3, 42)
    assert (message.tokens, message.truncated) == (row.encoded.tokens, False)
    assert message.metadata_json == '{"a":1}'
    assert not message.chunks


@pytest.mark.parametrize(("dtype", "letter"), [("float32", "f"), ("float16", "e")])
def test_vectors_are_little_endian(dtype: Literal["float32", "float16"], letter: str) -> None:
    """Any language reads the numbers by `<` and the named type."""
    row = embedding("a")
    record = only(row, encoder(dtype), offset=0, embedded_at=0)
    assert record.value is not None
    assert row.encoded is not None
    message = Embedding.FromString(record.value)
    assert message.dtype == dtype
    numbers = struct.unpack(f"<{DIMENSION}{letter}", message.vector)
    wanted = row.encoded.vectors[0].astype(dtype)
    np.testing.assert_array_equal(np.array(numbers, dtype), wanted)


def test_chunks() -> None:
    """Further chunks have their vectors, spans and tokens; the first is the message's own."""
    row = embedding("a", "abcdefghi", 3)
    record = only(row, encoder(), offset=0, embedded_at=0)
    assert record.value is not None
    assert row.encoded is not None
    message = Embedding.FromString(record.value)
    vectors = row.encoded.vectors
    assert message.vector == vectors[0].tobytes()
    assert [chunk.vector for chunk in message.chunks] == [v.tobytes() for v in vectors[1:]]
    assert [(c.start, c.end) for c in message.chunks] == [(3, 6), (6, 9)]
    assert [c.tokens for c in message.chunks] == list(row.encoded.chunk_tokens[1:])
    assert message.tokens == sum(row.encoded.chunk_tokens)


def test_headers() -> None:
    """A record says which layout and source it has, and carries the document's headers on."""
    row = embedding("a", headers=(("user_id", b"u"), ("traceparent", None)))
    record = only(row, encoder(), offset=42, embedded_at=0)
    assert record.headers == [
        ("headrace-schema", b"1"),
        ("headrace-source", b"docs/3/42"),
        ("user_id", b"u"),
        ("traceparent", None),
    ]


def test_tombstone() -> None:
    """A deleted document has a null value and the same headers."""
    record = only(tombstone("a"), encoder(), offset=1, embedded_at=0)
    assert (record.topic, record.key, record.value) == ("embeddings", b"a", None)
    assert dict(record.headers)["headrace-source"] == b"docs/3/1"


def test_dead_letter() -> None:
    """A dead letter is the original record with three headers more."""
    original = Original(None, b"\xff", (("mine", b"1"), ("headrace-error", b"earlier")))
    record = only(dead_letter("bad_utf8", original), encoder(), offset=7, embedded_at=0)
    assert (record.topic, record.key, record.value) == ("dead", None, b"\xff")
    assert record.headers == [
        ("mine", b"1"),
        ("headrace-error", b"earlier"),
        ("headrace-error", b"bad_utf8"),
        ("headrace-message", b"what is wrong"),
        ("headrace-source", b"docs/3/7"),
    ]


def test_one_record_for_each_outcome() -> None:
    """A batch gives as many records as it has outcomes, in its order and at its offsets."""
    batch = outcomes([tombstone("a"), dead_letter(), tombstone("b")], lane=LANE, offsets=[1, 5, 6])
    records = [Made(*record) for record in encoder().records(batch)]
    assert [record.topic for record in records] == ["embeddings", "dead", "embeddings"]
    sources = [dict(record.headers)["headrace-source"] for record in records]
    assert sources == [b"docs/3/1", b"docs/3/5", b"docs/3/6"]


def test_views() -> None:
    """A view has its product's record and its user's; a stock has none; a bad one a dead letter."""
    users = MessageEncoder("users", "dead", "float32", "some/model", "f1")
    writer = ViewMessages(encoder(), users, "views", 4)
    rows = [embedding("p"), Row(Kind.PART, "q", 0), dead_letter("no_text")]
    batch = outcomes(rows, lane=LANE, offsets=[1, 5, 6])
    beside = outcomes([embedding("u")], lane=LANE, offsets=[1], end=7)
    records = [Made(*one) for one in writer.records(replace(batch, beside=beside))]
    assert [(one.topic, one.key) for one in records] == [
        ("embeddings", b"p"),
        ("dead", b"key"),
        ("users", b"u"),
    ]
    assert {one.partition for one in records} == {-1}
    assert {one.timestamp for one in records} == {0}
    assert writer.fingerprint == "f1"


def test_a_moved_view() -> None:
    """It goes to its user's partition, as old as it is, and tells where it was last."""
    users = MessageEncoder("users", "dead", "float32", "some/model", "f1")
    writer = ViewMessages(encoder(), users, "views", 4)
    headers = (("mine", b"1"), ("headrace-source", b"views/0/3"))
    row = dead_letter(MOVED, Original(b"u123", b"{}", headers))
    [record] = [Made(*one) for one in writer.records(outcomes([row], 9, lane=LANE))]
    assert record[:3] == ("views", b"u123", b"{}")
    assert record.headers == [("mine", b"1"), ("headrace-source", b"docs/3/9")]
    assert (record.partition, record.timestamp) == (partition_of(b"u123", 4), 7)


def test_framing() -> None:
    """What a registry wants stands before each embedding, and before nothing else."""
    framing = b"\0\0\0\0\7\0"
    writer = replace(encoder(), framing=framing)
    value = only(embedding("a", "words"), writer).value
    assert value is not None
    assert value == framing + (only(embedding("a", "words"), encoder()).value or b"")
    assert only(tombstone("a"), writer).value is None
    assert (
        only(dead_letter("no_text"), writer).value == only(dead_letter("no_text"), encoder()).value
    )
