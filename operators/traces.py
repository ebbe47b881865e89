"""Which records belong to a trace that is followed: W3C's `traceparent` header, read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from operators.records import Headers

__all__ = ["TRACEPARENT", "TraceParent", "parse_traceparent", "sampled", "with_traceparent"]

TRACEPARENT: Final = "traceparent"

_FORM: Final = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_FLAGS_END: Final = 54
"""Where the last digit of the flags is."""

_ODD: Final = frozenset(b"13579bdf")


class TraceParent(NamedTuple):
    """The span that a record was written in.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: 16 hexadecimal digits.
        is_sampled: Whether its trace is recorded.
    """

    trace_id: str
    span_id: str
    is_sampled: bool

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.is_sampled:02x}"


def parse_traceparent(value: bytes | None) -> TraceParent | None:
    """The span that a header names; None where it can't be read."""
    found = _FORM.fullmatch(value or b"")
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    if version == b"00" and more is not None:
        return None
    return TraceParent(trace.decode(), span.decode(), bool(int(flags, 16) & 1))


def sampled(headers: Mapping[int, Headers], most: int) -> dict[int, TraceParent]:
    """The first records, by index, whose traces are recorded.

    Args:
        headers: Of the records that have any, by index.
        most: How many to look for.
    """
    found: dict[int, TraceParent] = {}
    for index, own in headers.items():
        for name, value in own:
            # One digit tells for most records that there is nothing to read.
            if (
                name == TRACEPARENT
                and value is not None
                and len(value) > _FLAGS_END
                and value[_FLAGS_END] in _ODD
            ):
                parent = parse_traceparent(value)
                if parent is not None:
                    found[index] = parent
                    if len(found) == most:
                        return found
    return found


def with_traceparent(headers: Headers, parent: TraceParent) -> Headers:
    """The headers with another span in the place of the one that they name."""
    told = str(parent).encode()
    return tuple((name, told if name == TRACEPARENT else value) for name, value in headers)
