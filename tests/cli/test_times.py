from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cli.times import moment
from headrace.errors import UsageError

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)


def at(*parts: int) -> int:
    """A time in UTC, in milliseconds."""
    return int(datetime(*parts, tzinfo=UTC).timestamp() * 1000)  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-02-28", at(2025, 2, 28)),
        ("2025-02-28T10:30", at(2025, 2, 28, 10, 30)),
        ("2025-02-28T10:30:00Z", at(2025, 2, 28, 10, 30)),
        ("2025-02-28T10:30+02:00", at(2025, 2, 28, 8, 30)),
        ("90s", at(2025, 3, 1, 11, 58, 30)),
        ("30m", at(2025, 3, 1, 11, 30)),
        ("2h", at(2025, 3, 1, 10)),
        ("1d", at(2025, 2, 28, 12)),
        ("1w", at(2025, 2, 22, 12)),
    ],
)
def test_dates_and_spans(text: str, expected: int) -> None:
    """A date is of UTC unless it says otherwise; a span counts back from now."""
    assert moment("--since", text, NOW) == expected


@pytest.mark.parametrize("text", ["", "2 h", "h", "-2h", "2y", "soon", "2025-13-01", "999999999w"])
def test_what_is_neither(text: str) -> None:
    """Anything else is wrong usage that names the option."""
    with pytest.raises(UsageError, match=r"^--since: '.*': must be a time such as"):
        moment("--since", text, NOW)
