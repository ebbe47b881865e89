"""What a fence row says, and what is none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.errors import SinkError
from sinks.fence import LOST, Fence


@given(
    st.dictionaries(st.text(), st.integers(0, 1 << 60)),
    st.text(),
    st.integers(0, 1 << 60),
    st.none() | st.integers(0, 1 << 60),
    st.none() | st.dictionaries(st.text(), st.integers(LOST, 1 << 60)),
)
def test_fence_comes_back(
    progress: dict[str, int],
    writer: str,
    sequence: int,
    seeded: int | None,
    tables: dict[str, int] | None,
) -> None:
    """What it holds is read as it was written, also of a table that is seeded and a directory."""
    fence = Fence("m", "f1", writer, sequence, progress, seeded=seeded, tables=tables)
    assert Fence.parse(fence.json()) == fence


def test_fence_after_keeps_other_lanes() -> None:
    """A commit of one lane moves that lane alone, and the row always changes."""
    fence = Fence("m", "f", "w", 3, {"a": 1, "b": 2}).after("x", {"b": 5})
    assert (fence.progress, fence.sequence, fence.writer) == ({"a": 1, "b": 5}, 4, "x")


def test_fence_of_a_directory() -> None:
    """Its tables stay unless others are given; progress begins anew only where that is said."""
    fence = Fence("m", "f", "w", 3, {"a": 1}, tables={"t": 4}).after("x", {"b": 5})
    assert (fence.progress, fence.tables) == ({"a": 1, "b": 5}, {"t": 4})
    fence = fence.after("x", {"b": 2}, tables={"t": LOST}, anew=True)
    assert (fence.progress, fence.tables) == ({"b": 2}, {"t": LOST})


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"version": 2}, "is of version 2"),
        ({"version": True}, "can't be read"),
        ({"version": None}, "can't be read"),
        ({"more": 1}, "can't be read"),
        ({"sequence": "7"}, "can't be read"),
        ({"progress": [3]}, "can't be read"),
        ({"seeded": "3"}, "can't be read"),
        ({"tables": ["t"]}, "can't be read"),
        ({"tables": {"t": -2}}, "can't be read"),
        ({"progress": {"documents/000000": -1}}, "can't be read"),
        ({"progress": {"documents/000000": 1.5}}, "can't be read"),
    ],
)
def test_a_fence_of_others(changed: dict[str, Any], told: str) -> None:
    """A fence row that this release did not write is refused by name, not by whatever breaks."""
    fields = json.loads(Fence("m", "f", "w", 3, {"documents/000000": 1}).json()) | changed
    with pytest.raises(SinkError, match=rf"table\.name: .*{told}"):
        Fence.parse(json.dumps(fields))


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", "[" * 5000, "7"])
def test_no_fence(text: str) -> None:
    """Nor is anything else taken for one."""
    with pytest.raises(SinkError, match=r"table\.name: .*can't be read"):
        Fence.parse(text)
