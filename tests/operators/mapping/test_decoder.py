from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import UsageError
from operators.documents import ERROR_CODES
from operators.mapping import Field, MappedDecoder, Plan
from operators.records import Document, Kind, Lane, RecordBatch

NOW = 1_700_000_000_000
PLAN = Plan(
    "{/title}. {/body?}",
    metadata={"brand": Field("/brand/name"), "price": Field("/price", "float64")},
    timestamp="/at?",
    delete_when="status == 'gone'",
    only="lang != 'de'",
    markup="html",
)
PRODUCT = {
    "title": "Stool",
    "body": "<b>Oak</b>",
    "brand": {"name": "Holz"},
    "price": "49.90",
    "at": 1_600_000_000,
}


def decode(value: object, key: bytes | None = b"p", plan: Plan = PLAN, most: int = 900) -> Document:
    """What a record becomes."""
    decoder = MappedDecoder({"price": "float64"}, most, plan=plan)
    raw = value if isinstance(value, bytes | None) else json.dumps(value).encode()
    return decoder.decode(key, raw, (), NOW)


def dead(value: object, key: bytes | None = b"p", plan: Plan = PLAN) -> tuple[str, str]:
    """The code and the message of the dead letter that a record becomes."""
    found = decode(value, key, plan).dead
    assert found is not None
    return found.code, found.message


def test_a_whole_record() -> None:
    """Text, metadata, typed columns and time are where the plan says."""
    found = decode(PRODUCT)
    assert found[:7] == (
        Kind.UPSERT,
        "p",
        "Stool. Oak",
        '{"brand":"Holz","price":49.9}',
        '{"brand":"Holz"}',
        (49.9,),
        1_600_000_000_000,
    )


def test_what_may_be_missing() -> None:
    """Optional places and metadata may be missing; the record's own time then counts."""
    found = decode({"title": "Stool", "price": None})
    assert (found.text, found.metadata, found.typed) == ("Stool.", "{}", (None,))
    assert found.event_time == NOW


def test_deletions() -> None:
    """A null value and a record of which the expression holds delete their document."""
    assert decode(None)[:2] == (Kind.DELETE, "p")
    found = decode({"status": "gone", "at": "2020-09-13T12:26:40Z"})
    assert (found.kind, found.text, found.event_time) == (Kind.DELETE, None, 1_600_000_000_000)


def test_passed_over() -> None:
    """What the filter does not take is passed over before anything else is asked of it."""
    assert decode({"lang": "de"}, key=None).kind is Kind.SKIP
    assert decode({**PRODUCT, "lang": "en"}).kind is Kind.UPSERT


@pytest.mark.parametrize(
    ("identity", "key", "value", "found"),
    [
        ("key", b"p", {}, "p"),
        ("key/id", b'{"id": 7}', {}, "7"),
        ("key/id", b'{"id": "x"}', {}, "x"),
        ("/sku", None, {"sku": "s-1"}, "s-1"),
    ],
)
def test_ids(identity: str, key: bytes | None, value: dict[str, Any], found: str) -> None:
    """The id is the key, or in it, or in the value."""
    plan = Plan("/title", identity)
    assert decode({"title": "t", **value}, key, plan).id == found


@pytest.mark.parametrize(
    ("identity", "key", "value", "code"),
    [
        ("key", None, {}, "missing_key"),
        ("key/id", None, {}, "missing_key"),
        ("key/id", b"{}", {}, "missing_key"),
        ("key/id", b"plain", {}, "bad_json"),
        ("/sku", b"p", {}, "missing_key"),
        ("/sku", b"p", {"sku": 1.5}, "bad_key"),
        ("/sku", b"p", {"sku": ""}, "bad_key"),
        ("/sku", b"p", {"sku": ["s"]}, "bad_key"),
    ],
)
def test_no_id(identity: str, key: bytes | None, value: dict[str, Any], code: str) -> None:
    """A record without an id where it should be is a dead letter."""
    assert dead({"title": "t", **value}, key, Plan("/title", identity))[0] == code


def test_a_null_value_under_an_id_of_the_value() -> None:
    """It does not say of which document it is, so it deletes none."""
    assert dead(None, b"p", Plan("/title", "/sku"))[0] == "missing_key"


@pytest.mark.parametrize(
    ("value", "code", "message"),
    [
        (b"{", "bad_json", "the value is not JSON"),
        (b"null", "bad_schema", "written as JSON"),
        ({"body": "x"}, "no_text", "/title: nothing is there (source.text)"),
        ({"title": "t", "price": "x"}, "bad_schema", "/price: can't be float64"),
        ({"title": "t", "at": "now"}, "bad_schema", "/at: is no ISO 8601 time"),
        ({"title": "t", "n": "x" * 900}, "too_large", "more than 900"),
    ],
)
def test_what_does_not_fit(value: object, code: str, message: str) -> None:
    """A record that does not fit is a dead letter whose message names the place."""
    found = dead(value)
    assert found[0] == code
    assert message in found[1]


def test_metadata_that_grows() -> None:
    """Metadata that names one place many times is held to the size of a record."""
    plan = Plan("/t", metadata={f"f{number}": Field("/n") for number in range(9)})
    found = decode({"t": "t", "n": "x" * 200}, plan=plan).dead
    assert found is not None
    assert found.code == "too_large"


@pytest.mark.parametrize(
    "plan",
    [
        Plan("title"),
        Plan("/t", "id"),
        Plan("/t", timestamp="at"),
        Plan("/t", metadata={"m": Field("m")}),
        Plan("/t", delete_when="=="),
        Plan("/t", only="a["),
    ],
)
def test_a_wrong_plan(plan: Plan) -> None:
    """A pointer or an expression that is none is refused before there is a record."""
    with pytest.raises(UsageError, match=r"^source\."):
        MappedDecoder(plan=plan)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
NAMES = ("title", "body", "brand", "price", "at", "status", "lang")
fields = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, json_values))


@given(st.lists(fields | json_values, max_size=5))
def test_anything_becomes_an_outcome(values: list[Any]) -> None:
    """Any JSON is a document, a deletion, passed over, or a dead letter with a stable code."""
    raw = [json.dumps(value).encode() for value in values]
    count = len(raw)
    records = RecordBatch(
        Lane("t", 0), 0, count, range(count), [NOW] * count, [b"p"] * count, raw, [()] * count
    )
    found = MappedDecoder({"price": "float64"}, plan=PLAN)(records)
    assert len(found) == count
    for index, kind in enumerate(found.kinds):
        assert (kind is Kind.DEAD) == (index in found.dead)
        assert (kind is Kind.UPSERT) == bool(found.texts[index])
    assert {letter.code for letter in found.dead.values()} <= ERROR_CODES
