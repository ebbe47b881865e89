from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.registry.wire import MAX_ID, SHOWN_CHARACTERS, Unreadable, in_short, schema_id
from tests.registries import framed


@given(st.integers(0, MAX_ID), st.binary())
def test_what_is_framed_has_its_id(number: int, data: bytes) -> None:
    """The id is the one that was written, whatever follows."""
    assert schema_id(framed(number, data)) == number


@given(st.binary().filter(lambda data: data[:1] != b"\0" or len(data) < 5))
def test_what_is_not_framed_is_told_as_that(data: bytes) -> None:
    """Anything else is refused as not in the wire format, ids that no registry gives, too."""
    with pytest.raises(Unreadable, match="wire format"):
        schema_id(data)
    with pytest.raises(Unreadable, match="00 80 00 00 00"):
        schema_id(framed(MAX_ID + 1, data))


@given(st.text())
def test_an_error_in_short(text: str) -> None:
    """However it is laid out, what is shown of an error is one line, not too long and not empty."""
    told = in_short(ValueError(text))
    assert 1 <= len(told) <= SHOWN_CHARACTERS + 1
    assert len(told.splitlines()) == 1
