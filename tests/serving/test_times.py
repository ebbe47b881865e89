"""Timestamps in seconds and milliseconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from operators.judging import MILLISECONDS_FROM, milliseconds
from serving.times import MAX_TIME, Timestamp

ADAPTER: TypeAdapter[float] = TypeAdapter(Timestamp)


@given(st.integers(0, MILLISECONDS_FROM - 1))
def test_seconds(seconds: int) -> None:
    """A whole number of seconds is that many thousand milliseconds."""
    assert milliseconds(seconds) == ADAPTER.validate_python(seconds) == seconds * 1000


@given(st.integers(MILLISECONDS_FROM, MAX_TIME))
def test_milliseconds(value: int) -> None:
    """From March 1973 on milliseconds are taken as they are."""
    assert milliseconds(value) == ADAPTER.validate_python(value) == value


@given(st.integers(0, MAX_TIME // 1000))
def test_units_agree(seconds: int) -> None:
    """A moment is the same in either unit, wherever milliseconds can be told from seconds."""
    if seconds * 1000 >= MILLISECONDS_FROM > seconds:
        assert milliseconds(seconds) == milliseconds(seconds * 1000)


@given(st.floats(0, MILLISECONDS_FROM, exclude_max=True))
def test_fractions(seconds: float) -> None:
    """A fraction of a second is kept to the millisecond."""
    assert abs(milliseconds(seconds) - seconds * 1000) <= 0.5


@given(st.integers() | st.floats())
def test_anything(value: float) -> None:
    """Whatever number comes, it is a time that the flow takes, or refused."""
    try:
        taken = ADAPTER.validate_python(value)
    except ValidationError:
        assert not 0 <= value <= MAX_TIME
    else:
        assert 0 <= taken <= MAX_TIME


@pytest.mark.parametrize("value", ["1700000000", True, None, [], {}, float("nan"), float("inf")])
def test_no_numbers(value: object) -> None:
    """What is no finite number is refused, also a text or a truth that Python would convert."""
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(value)


def test_microseconds() -> None:
    """Microseconds are refused, not taken for a far future."""
    with pytest.raises(ValueError, match="seconds or milliseconds"):
        milliseconds(1_700_000_000_000_000)
