"""Which field says when a record's content became what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from operators.judging import Rejected
from operators.mapping.times import time_ms
from operators.pointer import Pointer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operators.guess.fields import Field

__all__ = ["guess_time", "is_time"]

EARLIEST_MS: Final = 631_152_000_000  # 1990
LATEST_MS: Final = 4_102_444_800_000  # 2100
"""Between what years a number is a time, if its name says so too."""

CHANGED: Final = frozenset(
    {"updated", "modified", "changed", "edited", "update", "modification", "activity"}
)
GENERIC: Final = frozenset(
    {"timestamp", "ts", "time", "datetime", "event", "occurred", "epoch", "date", "at", "logged"}
)
CREATED: Final = frozenset(
    {"created", "creation", "published", "posted", "opened", "received", "added", "pubdate"}
)
OTHERS: Final = frozenset(
    {
        *("due", "expires", "expiry", "expiration", "birth", "birthday", "born", "until", "end"),
        *("ends", "deadline", "deleted", "closed", "archived", "resolved", "start", "dropoff"),
        *("release", "valid", "first", "last", "duration", "elapsed", "took", "zone", "timezone"),
    }
)
"""Words of times of something other than the record."""

CREATION: Final = 1
"""The rank of times of creation, the least."""


def is_time(field: Field) -> bool:
    """Whether all that is there are times."""
    if not field.values or field.kind not in ("string", "integer", "number"):
        return False
    if field.kind != "string" and not set(field.words) & (CHANGED | GENERIC | CREATED):
        return False
    return all(_is_moment(value) for value in field.values)


def guess_time(fields: Sequence[Field], *, by_key: bool) -> Field | None:
    """The field of the time, preferring that of the last change; None if there is none.

    Args:
        fields: What is in the records.
        by_key: Whether all records of a document are in one partition. Otherwise their times tell
            which is the newest, and that of a document's creation is the same in all.
    """
    least = CREATION if by_key else CREATION + 1
    times = [
        field for field in fields if _rank(field) >= least and _often(field) and is_time(field)
    ]
    return max(
        times, key=lambda field: (_rank(field), field.always, -len(field.path)), default=None
    )


def _often(field: Field) -> bool:
    return 2 * len(field.values) >= field.rows


def _rank(field: Field) -> int:
    words = set(field.words)
    if words & OTHERS and not words & CHANGED:
        return 0
    for rank, names in ((3, CHANGED), (CREATION, CREATED), (2, GENERIC)):
        if words & names:
            return rank
    return 0


def _is_moment(value: object) -> bool:
    if isinstance(value, str) and len(value) < len("2026-11-29"):
        return False
    try:
        return EARLIEST_MS <= time_ms(value, _ANYWHERE) <= LATEST_MS
    except Rejected:
        return False


_ANYWHERE: Final = Pointer("", "source.timestamp")
