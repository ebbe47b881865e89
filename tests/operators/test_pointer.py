from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import UsageError
from operators.judging import Rejected
from operators.pointer import Pointer

RECORD = {"a": {"b/c": [1, {"d": "x"}], "~": None}, "": 7, "0": "zero"}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("", RECORD),
        ("/a/b~1c/0", 1),
        ("/a/b~1c/1/d", "x"),
        ("/a/~0", None),
        ("/", 7),
        ("/0", "zero"),
        ("/a/b~1c/2", None),
        ("/a/b~1c/-", None),
        ("/a/b~1c/01", None),
        ("/a/b~1c/x", None),
        ("/0/1", None),
        ("/none", None),
    ],
)
def test_finds(pointer: str, found: object) -> None:
    """Fields, entries, escapes and the record itself are found; what is not there is None."""
    assert Pointer(pointer, "source.text").find(RECORD) == found


@given(values)
def test_finds_every_place(record: Any) -> None:
    """Whatever is in a record is found by the pointer that RFC 6901 gives its place."""

    def walk(value: Any, pointer: str) -> None:
        assert Pointer(pointer, "s").find(record) is value or value is None
        inner = (
            value.items()
            if isinstance(value, dict)
            else enumerate(value)
            if isinstance(value, list)
            else ()
        )
        for name, one in inner:
            token = str(name).replace("~", "~0").replace("/", "~1")
            if not token.endswith("?"):
                walk(one, f"{pointer}/{token}")

    walk(record, "")


@pytest.mark.parametrize("text", ["title", "a/b", "/a~2", "/a~", "#/a"])
def test_refuses(text: str) -> None:
    """What is no pointer is refused by the setting's name."""
    with pytest.raises(UsageError, match=r"source\.id: .*no JSON pointer"):
        Pointer(text, "source.id")


def test_needs_what_is_not_optional() -> None:
    """Only a pointer that ends in a question mark may find nothing; the message names it."""
    assert Pointer("/none?", "source.text").need(RECORD) is None
    with pytest.raises(Rejected, match=r"/none: nothing is there \(source\.text\)") as caught:
        Pointer("/none", "source.text").need(RECORD, "no_text")
    assert caught.value.code == "no_text"
