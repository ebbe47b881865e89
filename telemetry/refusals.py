"""Lines of the log about records that were refused: which, and why, never what they held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from operators.traces import TRACEPARENT, parse_traceparent
from operators.views import MOVED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from operators.records import Headers, OutcomeBatch
    from telemetry.limited import LimitedLog

__all__ = ["ids_of", "tell_dead_letters"]

NAMED: Final = ("event_id", "user_id")
MOST_CHARACTERS: Final = 128
"""How much of an id a line has."""


def ids_of(headers: Headers) -> dict[str, str]:
    """What the headers of a record say of where it comes from, for a line of the log."""
    found = {
        name: value.decode(errors="replace")[:MOST_CHARACTERS]
        for name, value in headers
        if name in NAMED and value is not None
    }
    for name, value in headers:
        parent = parse_traceparent(value) if name == TRACEPARENT else None
        if parent is not None:
            found["trace_id"] = parent.trace_id
    return found


def tell_dead_letters(log: LimitedLog, batches: Iterable[OutcomeBatch]) -> None:
    """Name the dead letters among some outcomes: for each code the first, then one a minute."""
    for batch in batches:
        for index, dead in batch.dead.items():
            if dead.code != MOVED:  # it is none: it comes again
                log.info(
                    "dead letter",
                    per=dead.code,
                    stage="topic",
                    code=dead.code,
                    topic=batch.lane.topic,
                    partition=batch.lane.partition,
                    offset=batch.offsets[index],
                    **ids_of(dead.original.headers),
                )
