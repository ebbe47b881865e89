from __future__ import annotations

import json

import pytest

from operators.guess.fields import fields_of
from operators.guess.identity import guess_id, is_in_key
from tests.operators.guess.samples import rows_of

VALUES = [{"id": number, "group": number % 2, "title": f"Text {number}"} for number in range(6)]


def guessed(
    values: list[dict[str, object]], keys: list[bytes | None], *, deletions: bool
) -> object:
    """The id of some records."""
    return guess_id(rows_of(*values, keys=keys), fields_of(values), deletions=deletions)


def test_the_key() -> None:
    """A key for each document is its id."""
    keys: list[bytes | None] = [b"doc-%d" % number for number in range(6)]
    assert guessed(VALUES, keys, deletions=False) == "key"


def test_a_key_that_spreads() -> None:
    """A key that many documents share is no id, if a field tells them apart."""
    keys: list[bytes | None] = [b"group-%d" % (number % 2) for number in range(6)]
    assert guessed(VALUES, keys, deletions=False) == "/id"


def test_deletions_need_the_key() -> None:
    """Where records without a value delete, the id must be in the key."""
    keys: list[bytes | None] = [b"group-%d" % (number % 2) for number in range(6)]
    assert guessed(VALUES, keys, deletions=True) == "key"


def test_messages_have_ids_of_their_own() -> None:
    """Under a key that repeats since documents change, a message's own id is not theirs."""
    values: list[dict[str, object]] = [
        {"event_id": f"e{number}", "title": "Text"} for number in range(6)
    ]
    keys: list[bytes | None] = [b"doc-%d" % (number % 2) for number in range(6)]
    assert guessed(values, keys, deletions=False) == "key"


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ({"id": 7}, "key/id"),
        ({"a/b": "x"}, "key/a~1b"),
        ({"_id": {"$oid": "5f"}}, "key/_id/$oid"),
        ({"schema": {"type": "int64"}, "payload": 7}, "key/payload"),
        ({"schema": {}, "payload": {"order": 7}}, "key/payload/order"),
        ({"order": 7, "line": 1}, "key"),
        ({"id": None}, "key"),
        (7, "key"),
    ],
)
def test_keys_of_json(key: object, place: str) -> None:
    """Of a key that holds one value the id is that value; of several, the whole."""
    written: list[bytes | None] = [json.dumps(key).encode()] * 2
    assert guessed([{"text": "a"}, {"text": "b"}], written, deletions=False) == place


@pytest.mark.parametrize("key", [None, b"", b"\xff\xfe", b"x" * 1025])
def test_no_key(key: bytes | None) -> None:
    """Without a key that can be an id, it is a field."""
    assert guessed(VALUES, [key] * 6, deletions=False) == "/id"


def test_no_id() -> None:
    """Neither times, nor what repeats, nor texts are taken for ids."""
    values: list[dict[str, object]] = [
        {
            "@timestamp": f"2026-01-01T00:0{number}:00Z",
            "trace": {"id": f"t{number % 2}"},
            "message": f"It is now {number}",
        }
        for number in range(6)
    ]
    assert guessed(values, [None] * 6, deletions=False) is None


def test_what_the_key_says() -> None:
    """A field that only repeats the key is known as such."""
    values = [{"sku": "a", "group": 1}, {"sku": "b", "group": 1}]
    rows = rows_of(*values, keys=[b"a", b"b"])
    assert [is_in_key(one, rows) for one in fields_of(values)] == [True, False]
