"""Views and stocks decoded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.v1.view_pb2 import Inventory, View
from operators.documents import ERROR_CODES
from operators.partitions import partition_of
from operators.records import DocumentBatch, Headers, Kind, Lane, RecordBatch
from operators.views import MOVED, ByTopic, StockDecoder, ViewDecoder

VIEWS, STOCKS = Lane("views", 0), Lane("inventory", 0)
NOW = 1_700_000_500_000
HOUR = 3_600_000.0
PROTOBUF: Headers = (("content-type", b"application/x-protobuf"),)
VIEW: dict[str, Any] = {
    "user_id": "u",
    "product_id": "42",
    "title": "Office Chair",
    "timestamp": 1_700_000_000,
}


def batch(
    lane: Lane, *records: tuple[bytes | None, bytes | None], headers: Headers = ()
) -> RecordBatch:
    """Records at the offsets from 0 on, each written at `NOW`."""
    keys, values = zip(*records, strict=True)
    count = len(records)
    return RecordBatch(lane, 0, count, range(count), [NOW] * count, keys, values, [headers] * count)


def view(key: bytes | None = b"u", **changed: Any) -> DocumentBatch:
    """One view, decoded; a change to None leaves the field out."""
    fields = {name: value for name, value in {**VIEW, **changed}.items() if value is not None}
    return ViewDecoder(1, HOUR)(batch(VIEWS, (key, json.dumps(fields).encode())))


def stock(key: bytes | None = b"42", value: bytes | None = None, **fields: Any) -> DocumentBatch:
    """One stock, decoded."""
    given = value if value is not None or not fields else json.dumps(fields).encode()
    return StockDecoder()(batch(STOCKS, (key, given)))


def typed(found: DocumentBatch) -> dict[str, Any]:
    """The columns of the one document that are told."""
    return {n: v[0] for n, v in found.metadata.typed.items() if v[0] is not None}


def test_a_view_is_a_document_of_its_product() -> None:
    """Title and category are what is embedded; seconds become milliseconds."""
    found = view(category="chairs")
    assert (found.kinds, found.ids) == ((Kind.UPSERT,), ("42",))
    assert found.texts == ("Office Chair. chairs",)
    assert found.event_times == (1_700_000_000_000,)
    assert found.metadata.json[0] is not None
    assert json.loads(found.metadata.json[0]) == {"title": "Office Chair", "category": "chairs"}
    heat = 1_700_000_000_000 / HOUR
    assert typed(found) == {
        "user_id": "u",
        "title": "Office Chair",
        "category": "chairs",
        "heat": heat,
    }


def test_a_view_can_tell_the_stock() -> None:
    """A view with `in_stock` is also a part of the product's stock, at the view's time."""
    found = typed(view(in_stock=False))
    assert (found["in_stock"], found["stock_time"]) == (False, 1_700_000_000_000)


def test_a_view_is_never_later_than_its_record() -> None:
    """Nor than now: a clock that goes ahead does not let a view outweigh all others."""
    assert view(timestamp=NOW + 10**9).event_times == (NOW,)
    assert view(timestamp=None).event_times == (NOW,)
    ahead = ViewDecoder(1, HOUR, now_ms=lambda: NOW - 5)
    fields = json.dumps({**VIEW, "timestamp": NOW}).encode()
    assert ahead(batch(VIEWS, (b"u", fields))).event_times == (NOW - 5,)


@pytest.mark.parametrize("key", [None, b"42", b"u"])
def test_a_view_in_another_lane_goes_back(key: bytes | None) -> None:
    """It is not lost: it is written again under its user, and taken there, whatever its key."""
    home = partition_of(b"u", 2)
    value = json.dumps(VIEW).encode()
    decoder = ViewDecoder(2, HOUR)
    elsewhere, there = Lane("views", 1 - home), Lane("views", home)
    assert decoder(batch(there, (key, value))).kinds == (Kind.UPSERT,)
    dead = decoder(batch(elsewhere, (key, value))).dead[0]
    assert (dead.code, dead.original.key, dead.original.value) == (MOVED, b"u", value)


@pytest.mark.parametrize(
    ("changed", "code", "named"),
    [
        ({"user_id": 7}, "bad_schema", "user_id"),
        ({"user_id": ""}, "bad_schema", "user_id"),
        ({"product_id": None}, "bad_schema", "product_id"),
        ({"product_id": "x" * 1025}, "bad_schema", "product_id"),
        ({"title": "  "}, "no_text", "title"),
        ({"title": None}, "no_text", "title"),
        ({"title": 1}, "bad_schema", "title"),
        ({"category": 3}, "bad_schema", "category"),
        ({"in_stock": "yes"}, "bad_schema", "in_stock"),
        ({"timestamp": "now"}, "bad_schema", "timestamp"),
        ({"timestamp": True}, "bad_schema", "timestamp"),
        ({"timestamp": -1}, "bad_schema", "timestamp"),
    ],
)
def test_wrong_views(changed: dict[str, Any], code: str, named: str) -> None:
    """Each fault has its code, and a message that names the field."""
    dead = view(**changed).dead[0]
    assert dead.code == code
    assert named in dead.message


@pytest.mark.parametrize(
    ("value", "code"),
    [(None, "bad_schema"), (b"{", "bad_json"), (b"\xff", "bad_utf8"), (b"[]", "bad_schema")],
)
def test_no_views(value: bytes | None, code: str) -> None:
    """What is no JSON object is a dead letter as it came."""
    dead = ViewDecoder(1, HOUR)(batch(VIEWS, (b"u", value))).dead[0]
    assert (dead.code, dead.original.value) == (code, value)


def test_a_large_view_is_kept_by_reference() -> None:
    """A view over the limit is a dead letter without its value."""
    dead = ViewDecoder(1, HOUR, 50)(batch(VIEWS, (b"u", b"x" * 51))).dead[0]
    assert (dead.code, dead.original.key, dead.original.value) == ("too_large", b"u", None)


def test_a_stock_is_a_part_of_its_product() -> None:
    """It has no text, and tells only of the stock."""
    found = stock(in_stock=True, quantity=3, timestamp=1_700_000_000_000)
    assert (found.kinds, found.ids, found.texts) == ((Kind.PART,), ("42",), (None,))
    at = 1_700_000_000_000
    told = {"in_stock": True, "quantity": 3, "stock_time": at, "quantity_time": at}
    assert typed(found) == told


def test_half_a_stock() -> None:
    """A quantity says whether there is any; a flag alone leaves the quantity as it was."""
    assert typed(stock(quantity=0))["in_stock"] is False
    assert typed(stock(quantity=2))["in_stock"] is True
    assert not {"quantity", "quantity_time"} & set(typed(stock(in_stock=True)))


def test_a_deleted_stock_is_out_of_stock() -> None:
    """A product that the inventory no longer has can't be had."""
    times = {"stock_time": NOW, "quantity_time": NOW}
    assert typed(stock()) == {"in_stock": False, "quantity": 0, **times}


@pytest.mark.parametrize(
    ("key", "fields", "code"),
    [
        (None, {"quantity": 1}, "missing_key"),
        (b"", {"quantity": 1}, "bad_key"),
        (b"\xff", {"quantity": 1}, "bad_key"),
        (b"42", {"quantity": 1, "product_id": "43"}, "bad_key"),
        (b"42", {"other": 1}, "bad_schema"),
        (b"42", {"quantity": -1}, "bad_schema"),
        (b"42", {"quantity": 1 << 63}, "bad_schema"),
        (b"42", {"quantity": True}, "bad_schema"),
        (b"42", {"quantity": 1, "in_stock": 1}, "bad_schema"),
    ],
)
def test_wrong_stocks(key: bytes | None, fields: dict[str, Any], code: str) -> None:
    """Each fault has its code."""
    assert stock(key, **fields).dead[0].code == code


@pytest.mark.parametrize("more", [{}, {"category": "chairs", "in_stock": False}])
def test_a_view_in_protobuf(more: dict[str, Any]) -> None:
    """It is what the same view in JSON is, and what is absent is not told."""
    sent = View(**VIEW, **more).SerializeToString()
    found = ViewDecoder(1, HOUR)(batch(VIEWS, (b"u", sent), headers=PROTOBUF))
    as_json = view(**more)
    assert found.kinds == as_json.kinds == (Kind.UPSERT,)
    assert (found.ids, found.texts) == (as_json.ids, as_json.texts)
    assert found.event_times == as_json.event_times
    assert found.metadata == as_json.metadata


@pytest.mark.parametrize(
    "fields",
    [
        {"in_stock": False},
        {"quantity": 0},
        {"in_stock": True, "quantity": 3, "timestamp": 1_700_000_000_000, "product_id": "42"},
    ],
)
def test_a_stock_in_protobuf(fields: dict[str, Any]) -> None:
    """It is what the same stock in JSON is: what is false or 0 is told, what is absent is not."""
    sent = Inventory(**fields).SerializeToString()
    found = StockDecoder()(batch(STOCKS, (b"42", sent), headers=PROTOBUF))
    as_json = stock(**fields)
    assert found.kinds == as_json.kinds == (Kind.PART,)
    assert (found.ids, found.event_times) == (as_json.ids, as_json.event_times)
    assert found.metadata == as_json.metadata


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"", "bad_schema"),
        (b"\xff", "bad_schema"),
        (b'{"user_id": "u", "product_id": "42", "title": "t"}', "bad_schema"),
        (View(user_id="u", product_id="42").SerializeToString(), "no_text"),
        (View(user_id="u" * 1025, product_id="42", title="t").SerializeToString(), "bad_schema"),
        (View(**{**VIEW, "timestamp": -1}).SerializeToString(), "bad_schema"),
        (None, "bad_schema"),
    ],
)
def test_wrong_views_in_protobuf(value: bytes | None, code: str) -> None:
    """Each fault has the code that it has in JSON."""
    dead = ViewDecoder(1, HOUR)(batch(VIEWS, (b"u", value), headers=PROTOBUF)).dead[0]
    assert (dead.code, dead.original.headers) == (code, PROTOBUF)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"", "bad_schema"),
        (b"\xff", "bad_schema"),
        (b'{"quantity": 1}', "bad_schema"),
        (Inventory(quantity=-1).SerializeToString(), "bad_schema"),
        (Inventory(quantity=1, product_id="43").SerializeToString(), "bad_key"),
        (Inventory(quantity=1, product_id="").SerializeToString(), "bad_key"),
    ],
)
def test_wrong_stocks_in_protobuf(value: bytes, code: str) -> None:
    """Each fault has the code that it has in JSON."""
    dead = StockDecoder()(batch(STOCKS, (b"42", value), headers=PROTOBUF)).dead[0]
    assert dead.code == code


def test_a_deleted_stock_under_any_header() -> None:
    """A null value has no content, so its type says nothing."""
    found = StockDecoder()(batch(STOCKS, (b"42", None), headers=PROTOBUF))
    assert typed(found)["in_stock"] is False


def test_a_view_in_protobuf_goes_back_as_it_is() -> None:
    """A view in another lane than its user's keeps the header that says what it is."""
    sent = View(**VIEW).SerializeToString()
    elsewhere = Lane("views", 1 - partition_of(b"u", 2))
    dead = ViewDecoder(2, HOUR)(batch(elsewhere, (b"u", sent), headers=PROTOBUF)).dead[0]
    assert (dead.code, dead.original.value) == (MOVED, sent)
    assert dead.original.headers == PROTOBUF


@pytest.mark.parametrize("field", [b"product_id", b"quantity"])
@pytest.mark.parametrize("value", [b"[" * 1000 + b"1" + b"]" * 1000, b'"' + b"a" * 9999 + b'"'])
def test_messages_have_a_bound(field: bytes, value: bytes) -> None:
    """A message shows no value of any depth or length: it is a header beside the record."""
    dead = stock(value=b'{"in_stock": true, "' + field + b'": ' + value + b"}").dead[0]
    assert dead.code in {"bad_key", "bad_schema"}
    assert len(dead.message) < 200


def test_each_topic_has_its_decoder() -> None:
    """Views and stocks are told apart by where they were read."""
    both = ByTopic({"views": ViewDecoder(1, HOUR), "inventory": StockDecoder()})
    assert both(batch(STOCKS, (b"42", b'{"quantity": 1}'))).kinds == (Kind.PART,)
    assert both(batch(VIEWS, (b"u", json.dumps(VIEW).encode()))).kinds == (Kind.UPSERT,)
    assert not len(both(RecordBatch(VIEWS, 3, 5)))


@given(
    st.lists(
        st.tuples(
            st.none() | st.binary(max_size=20),
            st.none()
            | st.binary(max_size=60)
            | st.dictionaries(
                st.sampled_from([*VIEW, "category", "in_stock", "quantity"]),
                st.none()
                | st.booleans()
                | st.integers()
                | st.floats()
                | st.text("1 é", max_size=3),
            ).map(lambda fields: json.dumps(fields).encode()),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_comes(records: list[tuple[bytes | None, bytes | None]]) -> None:
    """Every record becomes one row: a document, or a dead letter with a known code."""
    for decoder, lane in ((ViewDecoder(1, HOUR), VIEWS), (StockDecoder(), STOCKS)):
        found = decoder(batch(lane, *records))
        assert len(found) == len(records)
        for index, kind in enumerate(found.kinds):
            assert (kind is Kind.DEAD) == (index in found.dead)
        assert {dead.code for dead in found.dead.values()} <= {*ERROR_CODES, MOVED}
