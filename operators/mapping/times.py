"""Times as records have them: numbers since 1970 in whatever unit, or ISO 8601."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final

from operators.judging import MAX_TIME_MS, MIN_TIME_MS, kind_of, reject, shown

__all__ = ["time_ms"]

UNITS: Final = ((1e11, 1000.0), (1e14, 1.0), (1e17, 1e-3))
"""Below which size a number counts which unit, as milliseconds each: seconds up to the year 5138,
milliseconds and microseconds as far. What is larger counts nanoseconds."""

NANOSECONDS: Final = 1e-6

LARGEST: Final = 1e30
"""Beyond every time; so large an integer need not fit a float."""


def time_ms(found: object, place: object) -> int:
    """A time in milliseconds since 1970; one without a zone is UTC.

    Raises:
        Rejected: It is none, or outside the years 1 to 9999.
    """
    if isinstance(found, str):
        milliseconds = _parsed(found, place)
    elif isinstance(found, int | float) and not isinstance(found, bool):
        milliseconds = _counted(found)
    else:
        reject("bad_schema", f"{place}: must be a number or ISO 8601, is {kind_of(found)}")
    if not MIN_TIME_MS <= milliseconds <= MAX_TIME_MS:
        reject("bad_schema", f"{place}: is outside the years 1 to 9999: {shown(found)}")
    return round(milliseconds)


def _counted(number: float) -> float:
    size = abs(number)
    for limit, factor in UNITS:
        if size < limit:
            return number * factor
    return number * NANOSECONDS if size < LARGEST else math.inf


def _parsed(text: str, place: object) -> float:
    if text.isascii() and text.removeprefix("-").isdigit() and len(text) > len("20261129"):
        return _counted(float(text))
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000
    except (ValueError, OverflowError):
        reject("bad_schema", f"{place}: is no ISO 8601 time: {shown(text)}")
