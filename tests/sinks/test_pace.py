from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.pace import Pace

COSTS = st.lists(st.floats(0.0, 10.0), max_size=20)


def paced(*costs: float) -> Pace:
    """A pace that has met commits of those CPU-seconds."""
    pace = Pace(target_ms=40, share=0.3, longest_ms=500)
    for cost in costs:
        pace.spent(cost)
    return pace


def test_cheap_commits_keep_to_the_target() -> None:
    """While commits take less than their share, one begins each 40 ms."""
    assert paced().interval() == 0.04
    assert paced(*[0.011] * 50).interval() == 0.04


def test_costly_commits_become_rarer() -> None:
    """Commits that would take more than their share of a core wait for longer."""
    assert paced(*[0.03] * 100).interval() == pytest.approx(0.1)


def test_a_single_costly_commit_changes_little() -> None:
    """The first, which opens files, is not taken for the rule, and a later one weighs a fifth."""
    assert paced(1.0).interval() < 0.7
    assert paced(*[0.01] * 50, 0.02).interval() == 0.04


@given(COSTS, st.floats(0.0, 10.0))
def test_bounds(costs: list[float], took: float) -> None:
    """Whatever commits cost, one begins after the target, at the latest after the bound."""
    pace = paced(*costs)
    assert 0.04 <= pace.interval() <= 0.5
    assert pace.rest(took) == max(0.0, pace.interval() - took)


@given(COSTS, st.floats(0.0, 10.0))
def test_a_backlog_gets_large_commits(costs: list[float], took: float) -> None:
    """A flow that is behind commits no more often than twice a second."""
    pace = paced(*costs)
    assert pace.interval(behind=True) == 0.5
    assert pace.rest(took, behind=True) >= pace.rest(took)


def test_a_backlog_of_costly_commits_keeps_to_the_share() -> None:
    """Where commits may be rarer than that, a backlog makes none of them more frequent."""
    pace = Pace(target_ms=40, share=0.3, longest_ms=5000)
    for _ in range(100):
        pace.spent(0.9)
    assert pace.interval() == pace.interval(behind=True) == pytest.approx(3.0)


def test_a_commit_longer_than_the_interval_is_followed_at_once() -> None:
    """The interval counts from beginning to beginning, so a slow commit leaves no rest."""
    assert paced().rest(0.015) == pytest.approx(0.025)
    assert paced().rest(0.2) == 0.0
