from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry import freshness
from telemetry.freshness import SPAN_S, FreshnessWatch
from tests.samples import Clock, Log


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Log:
    """What is logged."""
    log = Log()
    monkeypatch.setattr(freshness, "log", log)
    return log


def test_a_missed_target_is_said_once_and_so_is_its_end(logged: Log) -> None:
    """A change is logged with its figures, by sink; that it lasts is not logged again."""
    clock = Clock()
    watch = FreshnessWatch({"topic": 100.0, "table": 200.0}, clock)
    missed = []
    for age in (50.0, 150.0, 150.0, 50.0, 50.0):
        clock.now += SPAN_S
        missed.append(watch.judge("topic", np.full(10, age)).missed)
        assert not watch.judge("table", np.full(10, age)).missed
    assert missed == [False, True, True, False, False]
    assert [event for event, _ in logged.events] == [
        "freshness target missed",
        "freshness target kept",
    ]
    assert logged.events[0][1] == {
        "stage": "topic",
        "target_ms": 100.0,
        "late_share": 1.0,
        "worst_ms": 150,
    }


def test_a_flow_at_the_edge_does_not_change_its_mind(logged: Log) -> None:
    """Between the two shares the last verdict stays."""
    clock = Clock()
    watch = FreshnessWatch({"topic": 100.0}, clock)
    for late in (4, 6, 4, 2, 6, 4):
        clock.now += SPAN_S
        watch.judge("topic", np.array([150.0] * late + [50.0] * (10 - late)))
    assert [event for event, _ in logged.events] == ["freshness target missed"]


@given(st.lists(st.floats(0, 1000), max_size=50))
def test_late_is_older_than_the_limit(ages: list[float]) -> None:
    """A record exactly as old as the limit is in time."""
    watch = FreshnessWatch({"topic": 100.0}, Clock())
    assert watch.judge("topic", np.array(ages)).late == sum(age > 100 for age in ages)
