from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import logging
import structlog
from telemetry.logs import configure
log = structlog.get_logger("made before")
configure()
log.debug("hidden")
log.info("lane starts", stage="source", event_id="e1", user_id="u1", odd=object)
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed", stage="table")
    logging.getLogger("librdkafka").exception("of a library")
logging.getLogger("librdkafka").info("hidden")
logging.getLogger("librdkafka").warning("broker %s away", 1)
structlog.contextvars.bind_contextvars(event_id="e2")
log.warning("two\\nlines")
"""


def test_json_lines_where_there_is_no_terminal() -> None:
    """Each record, structlog's or a library's, is one JSON line on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == ""
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    events = [line["event"] for line in lines]
    assert events == ["lane starts", "failed", "of a library", "broker 1 away", "two\nlines"]
    assert all(line["timestamp"].endswith("Z") for line in lines)
    levels = [line["level"] for line in lines]
    assert levels == ["info", "error", "error", "warning", "warning"]
    first, failed, library, _, last = lines
    assert (first["stage"], first["event_id"], first["user_id"]) == ("source", "e1", "u1")
    assert "ZeroDivisionError" in failed["exception"]
    assert "ZeroDivisionError" in json.dumps(library)
    assert last["event_id"] == "e2"
