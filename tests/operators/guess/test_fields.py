from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from operators.guess.fields import fields_of, words_of
from operators.pointer import Pointer
from tests.operators.guess.samples import field

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
ROWS = st.lists(st.dictionaries(st.text(max_size=8), JSON, max_size=5), max_size=6)


def test_words() -> None:
    """Names are read as people write them."""
    assert words_of("CreationDate") == ("creation", "date")
    assert words_of("is_deleted") == words_of("isDeleted") == ("is", "deleted")
    assert words_of("@timestamp") == ("timestamp",)


@given(ROWS)
def test_pointers_find_the_values(rows: list[dict[str, Any]]) -> None:
    """A field's pointer finds in the records just the values that the field has."""
    for one in fields_of(rows):
        pointer = Pointer(one.pointer, "source.text")
        found = [value for value in map(pointer.find, rows) if value is not None]
        assert found == list(one.values)


def test_kinds() -> None:
    """What is a whole number in one record and a fraction in another is a number."""
    assert field("a", 1, 2.5).kind == "number"
    assert field("a", 1, 2).kind == "integer"
    assert field("a", *(True, False)).kind == "boolean"
    assert field("a", "x", 1).kind == "mixed"


def test_what_holds_objects_elsewhere_is_no_field() -> None:
    """Where one record has an object, no value of another is looked at."""
    assert [one.pointer for one in fields_of([{"a": 1}, {"a": {"b": 2}}])] == ["/a/b"]
