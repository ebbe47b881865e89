from __future__ import annotations

import json
import socket

import pytest

from harness.debezium import PLAIN, RECORDED, TYPED
from harness.process import HOST

MOST_BYTES = 120_000


@pytest.mark.parametrize("name", [PLAIN, TYPED])
def test_what_is_recorded_tells_nothing_of_the_machine(name: str) -> None:
    """Neither its name nor an address is in the events."""
    text = (RECORDED / f"{name}.ndjson").read_text(encoding="utf-8")
    assert socket.gethostname() not in text
    assert HOST not in text
    assert "password" not in text


def test_what_is_recorded_is_small_and_has_every_operation() -> None:
    """All kinds of events are there, with schemas and without."""
    files = list(RECORDED.iterdir())
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    found: dict[str, set[str]] = {}
    for path in files:
        values = [json.loads(line)["value"] for line in path.read_text("utf-8").splitlines()]
        events = [json.loads(value) for value in values if value is not None]
        assert len(events) < len(values)
        found[path.stem] = {event.get("payload", event).get("op", "") for event in events}
    assert found == {PLAIN: {"c", "r", "u", "d", "t", "m", ""}, TYPED: {"c", "r", "u", "d", "m"}}
