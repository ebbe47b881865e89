from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.calibrate import Commits, solve
from benchmarks.deployment import (
    Costs,
    Deployment,
    ceilings,
    limit,
    primaries,
    shares,
    simulate,
)
from benchmarks.scaling import MEASURED, balance, tables_for

SECONDS = st.floats(1e-6, 1e-2)
COSTS = st.builds(
    Costs,
    document=st.floats(1e-4, 1e-2),
    exchange=SECONDS,
    transaction=SECONDS,
    produced=SECONDS,
    commit=st.floats(1e-3, 0.2),
    row=st.floats(1e-6, 1e-3),
)


@st.composite
def deployments(draw: st.DrawFn) -> Deployment:
    """Small ones, with lanes for every worker."""
    workers = draw(st.integers(1, 6))
    partitions = draw(st.integers(workers, 24))
    return Deployment(
        workers,
        partitions,
        broker_cores=draw(st.integers(1, 4)),
        tables=draw(st.integers(1, min(3, partitions))),
        hot_share=draw(st.sampled_from([0.0, 0.3])),
        machine_cores=draw(st.none() | st.integers(1, 4)),
    )


@given(st.integers(1, 300), st.integers(1, 100))
def test_lanes_are_spread_evenly(partitions: int, workers: int) -> None:
    """No worker has two lanes more than another, so with k lanes each, k/(k + 1) is used."""
    places = primaries(partitions, workers)
    held = [places.count(worker) for worker in range(workers)]
    assert sum(held) == partitions
    assert max(held) - min(held) <= 1
    each = partitions // workers
    assert 0 < balance(partitions, workers) <= 1
    assert balance(partitions, workers) >= each / (each + 1)
    assert partitions % workers or balance(partitions, workers) == 1


@pytest.mark.parametrize(
    ("partitions", "workers", "used"), [(3, 2, 0.75), (10, 8, 0.625), (16, 8, 1.0)]
)
def test_few_lanes_leave_workers_idle(partitions: int, workers: int, used: float) -> None:
    """Where one worker has a lane more, the others wait for it; the simulation sees the same."""
    assert balance(partitions, workers) == used
    deployment = Deployment(workers, partitions, tables=workers)
    whole = workers / (MEASURED.document + MEASURED.exchange * (1 - 1 / workers))
    assert simulate(MEASURED, deployment, 20_000 * workers) / whole == pytest.approx(used, abs=0.08)


@given(deployments())
def test_shares_make_a_whole(deployment: Deployment) -> None:
    """All lanes' shares together are all documents."""
    assert sum(shares(deployment)) == pytest.approx(1)


@settings(max_examples=60, deadline=None)
@given(COSTS, deployments())
def test_no_simulation_beats_the_calculation(costs: Costs, deployment: Deployment) -> None:
    """What is simulated never exceeds any part's ceiling, whatever things cost."""
    docs = 8000
    # Commits are of as many rows as a whole one has at best; the first and last are smaller.
    assert simulate(costs, deployment, docs) <= limit(costs, deployment)[1] * 1.1


@pytest.mark.parametrize(
    ("changed", "deployment", "part"),
    [
        ({}, Deployment(4, 16), "workers"),
        ({"row": 2e-3}, Deployment(16, 64), "table"),
        ({"produced": 5e-3}, Deployment(16, 64, broker_cores=1, tables=16), "broker"),
        ({}, Deployment(8, 32, tables=8, hot_share=0.5), "fullest worker"),
        ({}, Deployment(3, 12, machine_cores=2, tables=3), "machine"),
    ],
)
def test_the_simulation_comes_near_what_limits(
    changed: dict[str, float], deployment: Deployment, part: str
) -> None:
    """Whichever part saturates first, a long drain runs at nearly its ceiling."""
    costs = replace(MEASURED, **changed)
    name, most = limit(costs, deployment)
    assert name == part
    assert 0.85 * most <= simulate(costs, deployment, 200_000) <= 1.02 * most


def test_more_tables_lift_the_ceiling() -> None:
    """With as many tables as it says, none of them is what limits."""
    deployment = Deployment(1000, 4000)
    assert limit(MEASURED, deployment)[0] == "table"
    enough = replace(deployment, tables=tables_for(MEASURED, deployment))
    assert limit(MEASURED, enough)[0] != "table"
    assert ceilings(MEASURED, enough)["table"] > limit(MEASURED, enough)[1]


@given(st.floats(1e-3, 1.0), st.floats(1e-6, 1e-2), st.integers(1, 50), st.integers(100, 5000))
def test_costs_are_found_again(commit: float, row: float, small: int, large: int) -> None:
    """From two mean commits, the fixed part and the part of a row come out."""
    few = Commits(7, 7 * small, 7 * (commit + row * small))
    many = Commits(3, 3 * large, 3 * (commit + row * large))
    assert list(solve(few, many)) == pytest.approx([commit, row])
