from __future__ import annotations

import structlog
from structlog.testing import capture_logs

from operators.records import Original
from operators.views import MOVED
from telemetry.limited import LimitedLog
from telemetry.refusals import ids_of, tell_dead_letters
from tests.samples import dead_letter, embedding, outcomes

TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_dead_letters_are_named() -> None:
    """A line says why, where and whose, once for each code, and nothing of what the record held."""
    headers = (("event_id", b"e1"), ("user_id", b"u1"), ("secret", b"marker"))
    dead = dead_letter("bad_json", Original(b"marker", b"marker", headers))
    rows = [embedding("a", "marker"), dead, dead, dead_letter("no_text"), dead_letter(MOVED)]
    with capture_logs() as lines:
        tell_dead_letters(LimitedLog(structlog.get_logger()), [outcomes(rows, 10)])
    assert lines == [
        {
            "event": "dead letter",
            "log_level": "info",
            "stage": "topic",
            "code": "bad_json",
            "topic": "documents",
            "partition": 0,
            "offset": 11,
            "event_id": "e1",
            "user_id": "u1",
        },
        {
            "event": "dead letter",
            "log_level": "info",
            "stage": "topic",
            "code": "no_text",
            "topic": "documents",
            "partition": 0,
            "offset": 13,
        },
    ]


def test_ids_are_short_text() -> None:
    """Whatever bytes an id has, a line has text of it, no longer than it may be."""
    traceparent = f"00-{TRACE}-b7ad6b7169203331-00".encode()
    headers = (("event_id", b"\xff" * 500), ("user_id", None), ("traceparent", traceparent))
    assert ids_of(headers) == {"event_id": "\ufffd" * 128, "trace_id": TRACE}
