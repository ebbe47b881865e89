from __future__ import annotations

from typing import Any

import pytest

from operators.guess.deletions import guess_deletion
from operators.guess.fields import fields_of
from operators.mapping.expression import Expression


@pytest.mark.parametrize(
    ("kept", "gone"),
    [
        ({"deleted": False}, {"deleted": True}),
        ({"isDeleted": 0}, {"isDeleted": 1}),
        ({"__deleted": "false"}, {"__deleted": "true"}),
        ({"schema": {}, "payload": {"__deleted": "false"}}, {"payload": {"__deleted": "true"}}),
        ({"deleted_at": None}, {"deleted_at": "2026-01-01T00:00:00Z"}),
        ({"op": "update"}, {"op": "delete"}),
        ({"a-b": 1, "event": "it's"}, {"event": "removed"}),
    ],
)
def test_what_deletes(kept: dict[str, Any], gone: dict[str, Any]) -> None:
    """The expression holds of the record that deletes, and of no other."""
    found = guess_deletion(fields_of([kept, gone]))
    assert found is not None
    expression = Expression(found.expression, "source.delete_when")
    assert expression.holds(gone)
    assert not expression.holds(kept)


@pytest.mark.parametrize(
    "row", [{"deleted_by": "ada"}, {"status": "deleted"}, {"removed_items": True}, {"op": "update"}]
)
def test_what_does_not(row: dict[str, Any]) -> None:
    """Other names, and a value that is the only one, tell of no deletion."""
    assert guess_deletion(fields_of([row, row])) is None
