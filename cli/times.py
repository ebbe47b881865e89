"""Times as a person gives them: a date, or how long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from headrace.errors import UsageError

__all__ = ["moment"]

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(option: str, text: str, now: datetime) -> int:
    """The time that an option names, in milliseconds since 1970.

    Args:
        option: Its name, for the error.
        text: A date or a time in ISO 8601, in UTC unless it says otherwise; or how long ago, as a
            number and one of s, m, h, d and w.
        now: From when on to count back.

    Raises:
        UsageError: It is neither.
    """
    ago = re.fullmatch(r"(\d{1,9})([smhdw])", text)
    try:
        if ago is not None:
            when = now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            when = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{option}: {text!r}: must be a time such as 2025-03-01T12:00 (UTC unless it says "
            "otherwise), or how long ago, such as 2h or 7d"
        ) from error
    zoned = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return round(zoned.timestamp() * 1000)
