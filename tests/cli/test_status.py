from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import headrace, lines

if TYPE_CHECKING:
    from tests.cli.conftest import World

pytestmark = pytest.mark.kafka


def test_worked_off(world: World) -> None:
    """After all was worked off: no lag, both sinks as far, rows, tombstones, model, snapshot."""
    told = world.status
    assert told["lag"] == 0
    assert sum(p["high"] - p["low"] for p in told["partitions"]) == 9
    for partition in told["partitions"]:
        assert partition["committed"] == partition["table"] == partition["high"]
        assert partition["oldest_waiting_s"] is None
    table = told["table"]
    assert (table["rows"], table["tombstones"]) == (4, 1)
    assert table["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert 0 < table["age_s"] < 600
    assert 0 < told["snapshot"]["age_s"] < 600


def test_shown(world: World) -> None:
    """People get the same, and the recovery folder also from the environment."""
    env = {**world.env, "BYTEWAX_RECOVERY_DIRECTORY": str(world.recovery)}
    shown = headrace(env, "status").out
    assert "world.documents/1" in shown
    for name in ("group", "lag", "freshness", "model", "snapshot"):
        assert f"\n{name} " in shown
    assert "snapshot" not in headrace(world.env, "status").out


def test_waiting(fresh: dict[str, str]) -> None:
    """Without a flow: records wait, the oldest one's age is told, and there is no table."""
    headrace(fresh, "topics", "create", "--partitions", "1")
    for identity in "ab":
        headrace(fresh, "load", "-", stdin=lines({"id": identity, "text": "x"}))
        time.sleep(0.3)
    told = headrace(fresh, "status", "--json").json
    assert told["lag"] == 2
    assert told["table"] is None
    [partition] = told["partitions"]
    assert partition["committed"] is None
    assert 0.6 < partition["oldest_waiting_s"] < 60


def test_no_topics(fresh: dict[str, str]) -> None:
    """A missing topic is named with the way out."""
    done = headrace(fresh, "status")
    assert done.code == 1
    assert "headrace topics create" in done.err
    assert done.err.count("\n") == 1
