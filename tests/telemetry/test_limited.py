from __future__ import annotations

import structlog
from structlog.testing import capture_logs

from telemetry.limited import LimitedLog


def test_a_line_that_repeats_comes_once_a_minute() -> None:
    """The first comes at once, the next after a minute says how many were left out."""
    now = 0.0
    log = LimitedLog(structlog.get_logger(), clock=lambda: now)
    with capture_logs() as lines:
        for second in (0, 1, 30, 59.9, 60, 61, 200):
            now = second
            log.warning("away", second=second)
    assert [(line["second"], line.get("left_out")) for line in lines] == [
        (0, None),
        (60, 3),
        (200, 1),
    ]
    assert {line["log_level"] for line in lines} == {"warning"}


def test_each_kind_of_line_has_its_own_minute() -> None:
    """Another event, or another `per`, is told at once."""
    log = LimitedLog(structlog.get_logger(), clock=lambda: 5.0)
    with capture_logs() as lines:
        for code in ("bad_json", "no_text", "bad_json"):
            log.info("dead letter", per=code, code=code)
            log.info("other", code=code)
    told = [(line["event"], line["code"]) for line in lines]
    assert told == [("dead letter", "bad_json"), ("other", "bad_json"), ("dead letter", "no_text")]
