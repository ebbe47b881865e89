from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.traces import TraceParent, parse_traceparent, sampled, with_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{SPAN}-01".encode()
PASSED_OVER = f"00-{TRACE}-{SPAN}-00".encode()


def test_a_header_is_read() -> None:
    """Ids and the flag that says whether the trace is recorded come out, and go in again."""
    assert parse_traceparent(SAMPLED) == TraceParent(TRACE, SPAN, is_sampled=True)
    assert parse_traceparent(PASSED_OVER) == TraceParent(TRACE, SPAN, is_sampled=False)
    assert str(parse_traceparent(SAMPLED)).encode() == SAMPLED


def test_a_later_version_may_have_more() -> None:
    """As W3C asks: what a later version adds at the end is passed over."""
    later = f"cc-{TRACE}-{SPAN}-01-what-the-future-brings".encode()
    assert parse_traceparent(later) == TraceParent(TRACE, SPAN, is_sampled=True)


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"00-1-2-01",
        SAMPLED + b"-more",
        SAMPLED.upper(),
        b"ff" + SAMPLED[2:],
        SAMPLED.replace(TRACE.encode(), b"0" * 32),
        SAMPLED.replace(SPAN.encode(), b"0" * 16),
        b" " + SAMPLED,
    ],
)
def test_what_is_no_header_is_none(header: bytes | None) -> None:
    """A header of another form names no span."""
    assert parse_traceparent(header) is None


@given(st.lists(st.sampled_from([SAMPLED, PASSED_OVER, b"1" * 60, None, b""])), st.integers(1, 5))
def test_the_first_sampled_are_found(values: list[bytes | None], most: int) -> None:
    """Those whose traces are recorded, in their order, and no more than are wanted."""
    headers = {2 * i: (("user_id", b"u"), ("traceparent", v)) for i, v in enumerate(values)}
    wanted = [2 * i for i, value in enumerate(values) if value == SAMPLED][:most]
    assert list(sampled(headers, most)) == wanted


def test_a_span_takes_the_place_of_the_one_before() -> None:
    """Only `traceparent` changes, and stays where it was."""
    headers = (("event_id", b"e"), ("traceparent", SAMPLED), ("user_id", None))
    changed = with_traceparent(headers, TraceParent(TRACE, "00f067aa0ba902b7", is_sampled=True))
    told = f"00-{TRACE}-00f067aa0ba902b7-01".encode()
    assert changed == (("event_id", b"e"), ("traceparent", told), ("user_id", None))
