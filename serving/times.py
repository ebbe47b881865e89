"""Timestamps as people send them: seconds or milliseconds since 1970, told apart by their size."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from operators.judging import MAX_TIME_MS, milliseconds

__all__ = ["MAX_TIME", "Timestamp"]

MAX_TIME: Final = MAX_TIME_MS
"""The end of 9999, in milliseconds; a larger number counts microseconds or is none at all."""


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
