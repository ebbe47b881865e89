"""Each event that a real Debezium wrote of a real PostgreSQL, and what is made of it.

The events are those of `python -m harness.debezium`, which says what was done to the database.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jmespath
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jmespath.exceptions import JMESPathError

from harness.debezium import PLAIN, RECORDED, TYPED
from operators.debezium import PLACEHOLDER, Change, PartialRow, Unavailable, change, identity
from operators.judging import Rejected
from operators.records import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

Event = tuple[Any, Any]
"""A key and a value, as JSON has them; None where there was none."""


DEEP: Any = []
for _ in range(500):
    DEEP = [DEEP]


def recorded(name: str, topic: str) -> list[Event]:
    """The events of a topic, in their order."""
    lines = (RECORDED / f"{name}.ndjson").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return [
        (_json(one["key"]), _json(one["value"]))
        for one in found
        if one["topic"].removeprefix(f"{name}.public.") == topic
    ]


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def followed(events: list[Event]) -> dict[str, Mapping[str, Any]]:
    """What is left of a table by its events, as the flow would follow them."""
    rows: dict[str, Mapping[str, Any]] = {}
    for key, value in events:
        found = change(value)
        if found.kind is Kind.DELETE:
            rows.pop(identity(key), None)
        elif found.kind is Kind.UPSERT:
            assert found.row is not None
            rows[identity(key)] = found.row
    return rows


def told(value: Any) -> str:
    """What the dead letter of an event says."""
    with pytest.raises(Rejected) as caught:
        change(value)
    assert caught.value.code == "bad_schema"
    return caught.value.message


def test_a_table_is_what_its_events_say() -> None:
    """Snapshot, inserts, updates, deletions and a row that comes back leave the rows as they are.

    A changed primary key leaves nothing under the old one, and a column that was added is there.
    """
    rows = followed(recorded(PLAIN, "products"))
    titles = {name: row["title"] for name, row in rows.items()}
    assert titles == {
        "1": "Oak armchair",
        "20": "Pine table",
        "3": "Stool, back again",
        "4": "Shelf",
    }
    assert rows["1"]["description"] == "A chair of solid oak."
    assert rows["1"]["active"] is False
    assert rows["4"]["color"] == "white"


def test_kinds_follow_the_operation() -> None:
    """Each of create, read, update and delete asks for what its row needs."""
    kinds = {"c": Kind.UPSERT, "r": Kind.UPSERT, "u": Kind.UPSERT, "d": Kind.DELETE}
    events = [value for _, value in recorded(PLAIN, "products") if value is not None]
    assert {value["op"] for value in events} == kinds.keys()
    for value in events:
        assert change(value) == (kinds[value["op"]], value["after"], value["op"] == "u")


@pytest.mark.parametrize("name", [PLAIN, TYPED])
def test_a_schema_beside_the_event_changes_nothing(name: str) -> None:
    """Keys of two columns and their rows are the same with and without schemas, until the truncate.

    The amounts alone are not, which one of the two connectors was told to write as strings.
    """
    events = [event for event in recorded(name, "lines") if event[0] is not None]
    rows = followed(events)
    assert {key: (row["order"], row["line"], row["text"]) for key, row in rows.items()} == {
        '{"line":1,"order":7}': (7, 1, "Two armchairs of oak"),
        '{"line":2,"order":9}': (9, 2, "A pine table"),
    }
    if name == TYPED:
        assert {row["amount"] for row in rows.values()} == {"259.8", "80"}


def test_a_truncate_is_refused() -> None:
    """It does not say which rows there were, so it is a dead letter with the way out."""
    [(key, value)] = [event for event in recorded(PLAIN, "lines") if event[0] is None]
    assert key is None
    assert value["op"] == "t"
    assert "empty the table by DELETE" in told(value)


@pytest.mark.parametrize(
    "topic", ["__debezium-heartbeat.plain", "plain.transaction", "plain.message"]
)
def test_what_tells_of_no_row_is_passed_over(topic: str) -> None:
    """Heartbeats, borders of transactions and messages in the log ask for nothing."""
    events = recorded(PLAIN, topic)
    assert events
    assert {change(value) for _, value in events} == {Change(Kind.SKIP)}


def test_a_table_without_primary_key_has_no_ids() -> None:
    """Its events have no key, of which no id can be made."""
    [(key, value)] = recorded(PLAIN, "logs")
    assert change(value).kind is Kind.UPSERT
    with pytest.raises(Rejected, match="the key is null"):
        identity(key)


def test_values_that_are_not_carried_are_not_taken_for_others() -> None:
    """Large values of all types that an update did not touch can't be read, the others can."""
    (_, priced), (_, rewritten) = recorded(PLAIN, "articles")[1:3]
    row = change(priced).row
    assert isinstance(row, PartialRow)
    assert row.missing == {"body", "parts", "numbers", "keys", "words", "raw", "more"}
    assert (row["title"], row.get("price"), row.get("none", 0)) == ("Long", 2, 0)
    for name in row.missing:
        with pytest.raises(Unavailable, match=f"^{name}: unchanged.*REPLICA IDENTITY FULL"):
            row.get(name)
    later = change(rewritten).row
    assert isinstance(later, PartialRow)
    assert later.missing == {"parts", "numbers", "keys", "words", "raw"}
    assert later["body"].startswith("Other.")


def test_a_changed_key_carries_no_large_value_either() -> None:
    """The event under the new key leaves out what none has carried under that key."""
    (old, gone), (_, nothing), (new, created) = recorded(PLAIN, "articles")[3:]
    assert (gone["op"], nothing, created["op"]) == ("d", None, "c")
    assert identity(old) != identity(new)
    row = change(created).row
    assert isinstance(row, PartialRow)
    assert "body" in row.missing
    assert not change(created).known


def test_an_array_of_another_type_can_not_be_told_from_null() -> None:
    """Debezium itself has no placeholder for it; docs/cdc.md says so."""
    (_, created), (_, priced) = recorded(PLAIN, "articles")[:2]
    assert created["after"]["weights"][0] == 0.5
    assert priced["after"]["weights"] is None


def test_expressions_can_not_read_what_is_not_carried() -> None:
    """JMESPath is refused as well, even where it asks for all columns at once."""
    _, priced = recorded(PLAIN, "articles")[1]
    row = change(priced).row
    assert jmespath.search("title", row) == "Long"
    for expression in ("body", "body == 'x'", "*", "length(body)", "to_string(@)"):
        with pytest.raises(Unavailable):
            jmespath.search(expression, row)
    with pytest.raises(JMESPathError):
        jmespath.search("values(@)", row)


def test_a_row_that_is_not_carried_whole_is_not_written() -> None:
    """Nor does its JSON have a placeholder."""
    with pytest.raises(orjson.JSONEncodeError):
        orjson.dumps(PartialRow({"title": "t", "body": PLACEHOLDER}, {"body"}))


def test_a_full_replica_identity_carries_all() -> None:
    """An update that leaves a large value as it was still has it."""
    events = recorded(PLAIN, "notes")
    updated = next(value for _, value in events if value and value["op"] == "u")
    row = change(updated).row
    assert not isinstance(row, PartialRow)
    assert row is not None
    assert row["body"].startswith("A long note.")
    assert followed(events).keys() == {"first"}


def test_keys_are_words_of_any_script() -> None:
    """A key that is text is the id as it stands."""
    keys = {identity(key) for key, _ in recorded(PLAIN, "notes")}
    assert keys == {"first", "Grüße, 世界"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"id": 1, "title": "an unwrapped row"}, "ExtractNewRecordState"),
        ({"ts_ms": 1, "title": "a row with such a column"}, "ExtractNewRecordState"),
        ({"op": "c", "after": None}, "after must be an object where op is 'c', is null"),
        ({"op": "u", "after": "{}"}, "after must be an object where op is 'u', is a string"),
        ({"op": "x"}, "op must be one of c, r, u, d, t, m, is 'x'"),
        ({"op": ["c"]}, "op must be one of c, r, u, d, t, m, is an array"),
        ({"schema": {}, "payload": 5}, "the event must be a JSON object, is an integer"),
    ],
)
def test_what_is_no_event_is_refused(value: dict[str, Any], words: str) -> None:
    """Each names what is wrong with it."""
    assert words in told(value)


def test_a_change_of_schema_is_passed_over() -> None:
    """As other connectors write them to a topic of their own."""
    value = {"source": {}, "ts_ms": 1, "databaseName": "d", "ddl": "", "tableChanges": []}
    assert change(value) == Change(Kind.SKIP)


def test_a_null_beside_its_schema_deletes() -> None:
    """As a null value does."""
    assert change({"schema": None, "payload": None}) == Change(Kind.DELETE)


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ({"id": 7}, "7"),
        ({"id": True}, "true"),
        ({"id": {"scale": 1, "value": "CiY="}}, '{"scale":1,"value":"CiY="}'),
        ("plain", "plain"),
        (7, "7"),
        ({"schema": "public", "payload": 1}, '{"payload":1,"schema":"public"}'),
        ({"schema": {"type": "int32"}, "payload": 7}, "7"),
    ],
)
def test_ids_of_keys(key: object, wanted: str) -> None:
    """A key of one column is its value; columns called as an envelope's fields are no envelope."""
    assert identity(key) == wanted


@pytest.mark.parametrize(
    "key", [None, {}, "", {"id": ""}, {"id": None}, {"id": "x" * 1025}, {"id": DEEP}]
)
def test_keys_that_are_no_ids(key: object) -> None:
    """Nothing, and what is too long for an id."""
    with pytest.raises(Rejected) as caught:
        identity(key)
    assert caught.value.code == "bad_key"


@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=3), st.integers(-9, 9) | st.text(max_size=3), min_size=2, max_size=3
        ),
        min_size=2,
        max_size=2,
    ),
    st.randoms(use_true_random=False),
)
def test_unlike_keys_have_unlike_ids(keys: list[dict[str, Any]], random: Any) -> None:
    """Keys of several columns have one id exactly if they are equal, in whatever order."""
    one, other = keys
    mixed = list(one.items())
    random.shuffle(mixed)
    assert identity(dict(mixed)) == identity(one)
    assert (identity(one) == identity(other)) == (one == other)
