from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.v1.document_pb2 import Document as DocumentMessage
from operators.columns import COLUMN_TYPES
from operators.documents import ERROR_CODES, Decoder
from operators.records import DeadLetter, Headers, Kind, Lane, RecordBatch
from tests.samples import COLUMNS, Fields

DECODER = Decoder(COLUMNS, max_record_bytes=2000)
PROTOBUF: Headers = (("content-type", b"application/x-protobuf"),)
NOW = 1_700_000_000_000


@dataclass(frozen=True)
class Found:
    """A decoded record, as a row through a batch's columns."""

    kind: Kind
    id: str
    text: str | None
    metadata: Fields | None
    event_time: int
    headers: Headers
    dead: DeadLetter | None


def decode(
    value: object,
    headers: Headers = (),
    key: bytes | None = b"id",
    *,
    decoder: Decoder = DECODER,
    time: int = NOW,
) -> Found:
    """What a value, as bytes or as what JSON makes of it, is decoded to."""
    if not isinstance(value, bytes | None):
        value = json.dumps(value).encode()
    batch = decoder(RecordBatch(Lane("t", 0), 0, 1, [0], [time], [key], [value], [headers]))
    typed = {name: values[0] for name, values in batch.metadata.typed.items()}
    whole, rest = batch.metadata.json[0], batch.metadata.rest[0]
    return Found(
        batch.kinds[0],
        batch.ids[0],
        batch.texts[0],
        None if whole is None else Fields(whole, rest, typed),
        batch.event_times[0],
        batch.headers.get(0, ()),
        batch.dead.get(0),
    )


def code(value: object, headers: Headers = (), key: bytes | None = b"id") -> str | None:
    """The code with which a value is refused; None where it is not."""
    document = decode(value, headers, key)
    assert (document.kind is Kind.DEAD) == (document.dead is not None)
    return document.dead.code if document.dead else None


def metadata(**fields: object) -> dict[str, object]:
    """A document with those metadata fields."""
    return {"text": "words", "metadata": fields}


def test_codes_are_the_contracts() -> None:
    """The stable codes are those that the contract lists."""
    contract = (
        "missing_key bad_key bad_utf8 bad_json bad_schema no_text too_large not_finite poison"
    )
    assert frozenset(contract.split()) == ERROR_CODES


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (None, "missing_key"),
        (b"", "bad_key"),
        (b"x" * 1025, "bad_key"),
        (b"\xff\xfe", "bad_key"),
        (b"x" * 1024, None),
        ("ü" * 512, None),
        (b"x", None),
    ],
)
def test_key(key: bytes | str | None, expected: str | None) -> None:
    """A key is the id only if it is UTF-8 of 1 to 1024 bytes, for a deletion as well."""
    raw = key.encode() if isinstance(key, str) else key
    assert code({"text": "words"}, key=raw) == expected
    assert code(None, key=raw) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'{"text": "\xff"}', "bad_utf8"),
        (b"\x80", "bad_utf8"),
        (b"", "bad_json"),
        (b"{", "bad_json"),
        (b'{"text": "a"} x', "bad_json"),
        (b"{'text': 'a'}", "bad_json"),
        (b'{"text": "\\ud800"}', "bad_json"),
        (b"\xef\xbb\xbf{}", "bad_json"),
        (b"[" * 5000, "too_large"),
        (b"[" * 1900, "bad_json"),
        (b"[]", "bad_schema"),
        (b'"text"', "bad_schema"),
        (b"null", "bad_schema"),
        (b'{"text": 1}', "bad_schema"),
        (b'{"text": null}', "bad_schema"),
        (b'{"text": ["a"]}', "bad_schema"),
        (b'{"text": "a", "metadata": []}', "bad_schema"),
        (b'{"text": "a", "metadata": "{}"}', "bad_schema"),
        (b'{"text": "a", "timestamp": 1.5}', "bad_schema"),
        (b'{"text": "a", "timestamp": true}', "bad_schema"),
        (b'{"text": "a", "timestamp": "1"}', "bad_schema"),
        (b'{"text": "a", "timestamp": 253402300800000}', "bad_schema"),
        (b'{"text": "a", "timestamp": -62135596800001}', "bad_schema"),
        (b"{}", "no_text"),
        (b'{"timestamp": 5}', "no_text"),
        (b'{"metadata": null}', "no_text"),
        (b'{"text": ""}', "no_text"),
        (b'{"text": " \\t\\n\\u00a0\\u2003"}', "no_text"),
        (b'{"text": "", "metadata": {"a": 1}}', "no_text"),
        (b'{"text": "a", "metadata": {"a": NaN}}', "not_finite"),
        (b'{"text": "a", "metadata": {"a": [Infinity]}}', "not_finite"),
        (b'{"text": "a", "metadata": {"a": -Infinity}}', "not_finite"),
        (b'{"text": "a", "metadata": {"a": 1e999}}', "not_finite"),
        (b'{"text": "a", "metadata": {"a": -1e999}}', "not_finite"),
        (b'{"text": "a", "metadata": null}', None),
        (b'{"text": "a", "timestamp": null}', None),
        (b'{"text": "a", "other": [1]}', None),
        (b'{"text": "a", "timestamp": 253402300799999}', None),
    ],
)
def test_value(value: bytes, expected: str | None) -> None:
    """Each fault of a JSON value has the contract's code, and what is allowed passes."""
    assert code(value) == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("name", 1, "bad_schema"),
        ("name", "a", None),
        ("on", 1, "bad_schema"),
        ("on", True, None),
        ("small", 1 << 31, "bad_schema"),
        ("small", -(1 << 31), None),
        ("small", True, "bad_schema"),
        ("small", 1.0, "bad_schema"),
        ("big", (1 << 63) - 1, None),
        ("big", 1 << 63, "bad_schema"),
        ("big", "1", "bad_schema"),
        ("half", 1e39, "not_finite"),
        ("half", -1e39, "not_finite"),
        ("half", 3.4028234663852886e38, None),
        ("half", 3, None),
        ("price", False, "bad_schema"),
        ("price", 1e308, None),
        ("price", "1", "bad_schema"),
        ("price", [], "bad_schema"),
    ],
)
def test_typed_columns(name: str, value: object, expected: str | None) -> None:
    """A typed column takes only what Arrow can store in it; null is always allowed."""
    assert code(metadata(**{name: value})) == expected
    if expected is None:
        found = decode(metadata(**{name: value})).metadata
        assert found is not None
        assert found.typed[name] == value
    assert code(metadata(**{name: None})) is None


def test_every_column_type_is_tested() -> None:
    """A type that is added needs a case above."""
    assert set(COLUMNS.values()) == set(COLUMN_TYPES)


def test_typed_columns_leave_the_rest() -> None:
    """Typed fields go to columns, all others to `rest`, everything to `json`."""
    fields = {"price": 2.5, "other": {"a": [1, None]}, "name": None}
    found = decode(metadata(**fields)).metadata
    assert found is not None
    assert json.loads(found.json or "") == fields
    assert json.loads(found.rest or "") == {"other": {"a": [1, None]}}
    assert found.typed == {name: {"price": 2.5}.get(name) for name in COLUMNS}
    untyped = decode(metadata(**fields), decoder=Decoder()).metadata
    assert untyped is not None
    assert untyped.rest == untyped.json


def test_too_large_is_kept_by_reference() -> None:
    """A record over the limit loses its value and keeps key and headers; at the limit it passes."""
    headers: Headers = (("a", b"b"),)
    fits = json.dumps({"text": "x" * 1981}).encode()
    assert len(fits) + len(b"id") < 2000
    assert code(fits + b" " * (1998 - len(fits))) is None
    dead = decode(fits + b" " * (1999 - len(fits)), headers).dead
    assert dead is not None
    assert dead.code == "too_large"
    assert (dead.original.key, dead.original.value, dead.original.headers) == (b"id", None, headers)


def test_dead_letter_keeps_the_original() -> None:
    """Key, value and headers of a dead letter are what was read, and the message says why."""
    headers: Headers = (("a", None), ("event_id", b"1"))
    document = decode(b"\xff", headers)
    assert document.dead is not None
    assert document.dead.original.key == b"id"
    assert document.dead.original.value == b"\xff"
    assert document.dead.original.headers == headers
    assert "UTF-8" in document.dead.message
    assert document.event_time == NOW


def test_tombstone() -> None:
    """A null value deletes; a JSON null does not."""
    document = decode(None, (("traceparent", b"t"), ("other", b"o")))
    assert (document.kind, document.id, document.event_time) == (Kind.DELETE, "id", NOW)
    assert document.text is None
    assert document.headers == (("traceparent", b"t"),)


def test_patch() -> None:
    """Metadata without text changes only the metadata."""
    document = decode({"metadata": {"price": 1}, "timestamp": 5})
    assert (document.kind, document.text, document.event_time) == (Kind.PATCH, None, 5)
    assert document.metadata is not None
    assert document.metadata.json == '{"price":1}'


@pytest.mark.parametrize("time", [0, -5, 1, 253_402_300_799_999])
def test_timestamp_of_the_value_wins(time: int) -> None:
    """The value's timestamp, zero and negative ones too, goes before the record's own."""
    assert decode({"text": "a", "timestamp": time}).event_time == time
    assert decode({"text": "a"}).event_time == NOW


def test_only_contract_headers_are_carried() -> None:
    """`traceparent`, `event_id` and `user_id` go on, in order; others do not."""
    headers: Headers = (("user_id", b"u"), ("x", b"x"), ("event_id", None), ("traceparent", b"t"))
    carried = decode({"text": "a"}, headers).headers
    assert carried == (("user_id", b"u"), ("event_id", None), ("traceparent", b"t"))


def message(**fields: Any) -> bytes:
    """A document as Protobuf."""
    return DocumentMessage(**fields).SerializeToString()


@pytest.mark.parametrize(
    "content_type",
    [b"application/x-protobuf", b"Application/X-Protobuf", b"application/x-protobuf; v=1"],
)
def test_protobuf(content_type: bytes) -> None:
    """The header `content-type` alone, however it is written, makes a value Protobuf."""
    value = message(text="words", metadata_json='{"price": 2}', timestamp=9)
    document = decode(value, (("Content-Type", content_type),))
    assert (document.kind, document.text, document.event_time) == (Kind.UPSERT, "words", 9)
    assert document.metadata is not None
    assert document.metadata.typed["price"] == 2
    assert code(value, (("content-type", b"application/json"),)) is not None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"\x0a\x05ab", "bad_schema"),
        (b"\xff\xff\xff", "bad_schema"),
        (b'{"text": "a"}', "bad_schema"),
        (message(), "no_text"),
        (message(text=""), "no_text"),
        (message(text="a", metadata_json="{"), "bad_json"),
        (message(text="a", metadata_json="[]"), "bad_schema"),
        (message(text="a", metadata_json='{"a": NaN}'), "not_finite"),
        (message(text="a", metadata_json='{"small": 1.5}'), "bad_schema"),
        (message(text="a", timestamp=1 << 62), "bad_schema"),
        (message(text="a", timestamp=0), None),
        (message(metadata_json="{}"), None),
    ],
)
def test_protobuf_faults(value: bytes, expected: str | None) -> None:
    """Protobuf values are judged by the same codes as JSON ones."""
    assert code(value, PROTOBUF) == expected


def test_protobuf_patch_and_zero_timestamp() -> None:
    """Absent text makes a patch; a timestamp of zero is present, not absent."""
    document = decode(message(metadata_json="{}", timestamp=0), PROTOBUF)
    assert (document.kind, document.event_time) == (Kind.PATCH, 0)


@pytest.mark.parametrize("depth", [100, 250, 300, 900])
@pytest.mark.parametrize("columns", [{}, {"price": "float64"}])
def test_deep_metadata_never_raises(depth: int, columns: dict[str, str]) -> None:
    """Metadata as deep as the parser takes is decoded or refused; it does not end the flow."""
    value = b'{"text": "a", "metadata": {"a": ' + b"[" * depth + b"]" * depth + b"}}"
    document = decode(value, decoder=Decoder(columns))
    assert document.dead is None or document.dead.code in ERROR_CODES


def test_rewritten_metadata_stays_within_the_limit() -> None:
    """Metadata that is longer written out than it was read can't outgrow what a record may have."""
    numbers = b",".join([b"1e15"] * 380)
    value = b'{"text": "a", "metadata": {"a": [' + numbers + b"]}}"
    assert len(value) < 2000
    document = decode(value)
    size = len(document.metadata.json or "") if document.metadata else 0
    assert size <= 2000


def test_headers_count_as_size() -> None:
    """A dead letter carries all headers, so a record that they make too large is refused."""
    dead = decode(b"{", (("big", b"x" * 5000),)).dead
    assert dead is not None
    assert dead.code == "too_large"


def test_order_and_ranges_are_kept() -> None:
    """A batch's documents run in parallel to its offsets, and its range stays."""
    values = [b'{"text": "a"}', None, b"{"]
    batch = RecordBatch(
        Lane("t", 3), 5, 20, [6, 9, 11], [1, 2, 3], [b"a", b"b", b"c"], values, [()] * 3
    )
    decoded = DECODER(batch)
    assert decoded.records is batch
    assert list(decoded.kinds) == [Kind.UPSERT, Kind.DELETE, Kind.DEAD]
    assert list(decoded.ids) == ["a", "b", ""]
    assert list(decoded.metadata.json) == ["{}", None, None]
    assert [letter.original for letter in decoded.dead.values()] == [batch.original(2)]
    assert list(decoded.dead) == [2]
    empty = RecordBatch(Lane("t", 3), 5, 20)
    assert DECODER(empty).records is empty
    assert len(DECODER(empty)) == 0


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(
    st.sampled_from(["text", "metadata", "timestamp"]),
    JSON_VALUES | st.dictionaries(st.sampled_from(sorted(COLUMNS)), JSON_VALUES) | st.text(),
)
VALUES = st.one_of(
    st.none(),
    st.binary(max_size=60),
    (FIELDS | JSON_VALUES).map(lambda value: json.dumps(value).encode()),
    (FIELDS | JSON_VALUES).map(
        lambda value: json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
    ),
    st.builds(
        lambda text, meta, time: message(text=text, metadata_json=meta, timestamp=time),
        st.text() | st.none(),
        FIELDS.map(json.dumps) | st.none(),
        st.integers(-(1 << 63), (1 << 63) - 1) | st.none(),
    ),
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["content-type", "user_id", "x"]) | st.text(),
        st.sampled_from([b"application/x-protobuf", None]) | st.binary(),
    ),
    max_size=3,
).map(tuple)


@given(st.none() | st.binary(max_size=20) | st.just(b"id"), VALUES, HEADERS, st.integers(0, NOW))
@example(b"id", b'{"\x00"\x00', (), 0)
@example(b"id", b'{"text":"a","metadata":{"price":' + b"9" * 400 + b"}}", (), 0)
@example(b"id", b'{"text":"a","metadata":{"a":' + b"9" * 5000 + b"}}", (), 0)
def test_anything_becomes_a_document(
    key: bytes | None, value: bytes | None, headers: Headers, time: int
) -> None:
    """Whatever bytes a record holds, it gives one document, whose parts fit its kind."""
    document = decode(value, headers, key, time=time)
    assert (document.kind is Kind.DEAD) == (document.dead is not None)
    assert (document.kind is Kind.UPSERT) == (document.text is not None)
    assert (document.metadata is not None) == (document.kind in {Kind.UPSERT, Kind.PATCH})
    if document.dead is not None:
        assert document.dead.code in ERROR_CODES
        assert "\n" not in document.dead.message
    else:
        assert document.id.encode() == key
    if document.text is not None:
        assert document.text.strip()
        document.text.encode()
    if document.metadata is not None:
        assert isinstance(json.loads(document.metadata.json or ""), dict)
        assert list(document.metadata.typed) == list(COLUMNS)


def test_size_then_key_then_value() -> None:
    """Of several faults the first in the documented order names the code."""
    faults = itertools.product([None, b""], [b"{", b"\xff"])
    assert {code(value, key=key) for key, value in faults} == {"missing_key", "bad_key"}
    assert code(b"\xff" * 3000) == "too_large"
    assert code(b"\xff" * 3000, key=None) == "too_large"


def test_a_message_shows_no_number_of_any_length() -> None:
    """A message is a header beside the whole record, so it has a bound."""
    digits = b"1" * 1000 + b"e999"
    dead = decode(b'{"text": "a", "metadata": {"n": ' + digits + b"}}").dead
    assert dead is not None
    assert dead.code == "not_finite"
    assert len(dead.message) < 200
