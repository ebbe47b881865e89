from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from harness.audit import Given
from harness.cdc import PLACEHOLDER, Changes, _document

PLACE = ("shop.public.articles", 0, 7)


def event(operation: str, **row: Any) -> Given:
    """An event of the row 7."""
    value = {"op": operation, "after": row or None}
    return Given(PLACE, b'{"id": 7}', json.dumps(value).encode(), "")


@given(st.integers(0, 99))
def test_changes_name_rows_that_are_there(seed: int) -> None:
    """Each change is of rows that exist, and comes to as many events as it says."""
    changes = Changes(["it's one", " another ", " "], seed)
    ids: set[str] = set()
    for made in [*changes.rows(20), *changes.changes(200)]:
        if made.statement.startswith("INSERT"):
            [new] = re.findall(r"VALUES \((\d+),", made.statement)
            assert new not in ids
            assert made.events == 1
            ids.add(new)
            continue
        named = set(re.findall(r"\d+", made.statement.partition(" WHERE id ")[2]))
        if made.statement.startswith("BEGIN"):
            assert made.events == 0
        elif made.statement.startswith("DELETE"):
            assert named <= ids
            assert made.events == 2
            ids -= named
        elif renamed := re.search(r"SET id = (\d+)", made.statement):
            assert named <= ids
            assert made.events == 3
            ids = (ids - named) | {renamed[1]}
        else:
            assert named <= ids
            assert made.events == len(named)


def test_the_same_seed_makes_the_same_changes() -> None:
    """So that a fault can be seen again."""
    one, other = (Changes(["a", "b", "c"], 3) for _ in range(2))
    assert list(one.rows(20)) == list(other.rows(20))
    assert list(one.changes(50)) == list(other.changes(50))


def test_what_must_become_of_an_event() -> None:
    """Told by a rule of its own: rows are documents, a text that is not carried is none."""
    row = _document(event("c", title="t", body="b", price=1))
    assert (row.key, row.expect) == (b"7", "embedding")
    assert json.loads(row.value or b"") == {"metadata": {"title": "t", "price": 1}, "text": "b"}
    kept = _document(event("u", title="t", body=PLACEHOLDER, price=1))
    assert "text" not in json.loads(kept.value or b"")
    for gone in (event("d"), Given(PLACE, b'{"id": 7}', None, "")):
        assert _document(gone) == Given(PLACE, b"7", None, "tombstone")
