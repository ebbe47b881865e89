"""Timestamps as people send them: seconds or milliseconds since 1970, told apart by their size."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from operators.documents import MAX_TIME_MS

__all__ = ["MAX_TIME", "MILLISECONDS_FROM", "Timestamp", "milliseconds"]

MILLISECONDS_FROM: Final = 100_000_000_000
"""From here on a number counts milliseconds: in seconds it would be the year 5138, while in
milliseconds it is March 1973."""

MAX_TIME: Final = MAX_TIME_MS
"""The end of 9999, in milliseconds; a larger number counts microseconds or is none at all."""


def milliseconds(timestamp: float) -> int:
    """A timestamp in milliseconds since 1970.

    Args:
        timestamp: Seconds, with or without a fraction, or milliseconds; not negative.

    Raises:
        ValueError: It is before 1970, or after 9999 in either unit.
    """
    if not 0 <= timestamp <= MAX_TIME:
        raise ValueError("must be seconds or milliseconds since 1970, up to the year 9999")
    return round(timestamp if timestamp >= MILLISECONDS_FROM else timestamp * 1000)


def _checked(value: Any) -> int:  # noqa: ANN401 - pydantic has made a number of it
    return milliseconds(value)


Timestamp = Annotated[
    Annotated[int, Field(strict=True, ge=0, le=MAX_TIME)]
    | Annotated[float, Field(strict=True, ge=0, le=MAX_TIME, allow_inf_nan=False)],
    AfterValidator(_checked),
    Field(
        description="When, since 1970: in seconds below 100,000,000,000, else in milliseconds.",
        examples=[1700000000, 1700000000123],
    ),
]
"""Seconds or milliseconds in a body; milliseconds once read."""
