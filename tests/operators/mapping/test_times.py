from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.judging import Rejected
from operators.mapping.times import time_ms
from operators.pointer import Pointer

POINTER = Pointer("/at", "source.timestamp")
TIME = 1_767_225_600_000


@pytest.mark.parametrize(
    "found",
    [
        TIME // 1000,
        TIME,
        TIME * 1000,
        TIME * 1_000_000,
        TIME / 1000,
        str(TIME),
        "2026-01-01T00:00:00Z",
        "2026-01-01",
        "20260101",
        "2026-01-01T01:00:00+01:00",
        "2026-01-01 00:00:00.000",
    ],
)
def test_one_time(found: object) -> None:
    """Seconds, milliseconds, microseconds, nanoseconds and ISO 8601 mean the same time."""
    assert time_ms(found, POINTER) == TIME


@given(
    st.datetimes(min_value=datetime(1974, 1, 1), max_value=datetime(5000, 1, 1)),  # noqa: DTZ001
    st.sampled_from([1e-3, 1, 1e3]),
)
def test_units(time: datetime, factor: float) -> None:
    """A time of these centuries is known by its size in any of the units."""
    milliseconds = round(time.replace(tzinfo=UTC).timestamp() * 1000)
    assert abs(time_ms(milliseconds * factor, POINTER) - milliseconds) <= 1


@pytest.mark.parametrize(
    "found", [True, None, [], {}, "now", "", "12", float("inf"), 1e300, "9" * 400, 10**400]
)
def test_no_time(found: object) -> None:
    """What is no time is refused, and the message names the pointer."""
    with pytest.raises(Rejected, match=r"^/at: ") as caught:
        time_ms(found, POINTER)
    assert caught.value.code == "bad_schema"
