"""Memory stays under the stated bound, small. `make soak` runs the same at length."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from harness.memory import DIMENSION, MIB, PARTITIONS, MemoryTrial, Usage, bound, large, short

if TYPE_CHECKING:
    from pathlib import Path

    from harness.broker import Broker

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

BUDGET = {"HEADRACE_SOURCE__MAX_IN_FLIGHT_BYTES": str(8 * MIB)}
LARGE = 1000
"""Documents of 900 kB that both tests of the budget write: together more than the bound."""


def stopped(trial: MemoryTrial) -> list[Usage]:
    """Memory while the table is stopped and large documents are in the topic."""
    count = trial.written()
    trial.write(large(8, distinct=8), "known")
    trial.wait(lambda: trial.written() >= count + 8)
    # All of it is there before the table stops: the watchdog allows that for 30 seconds.
    trial.flow.pause()
    trial.write(large(LARGE, distinct=8))
    trial.flow.resume()
    with trial.table_stopped(), trial.sampled() as usages:
        time.sleep(20)
    return usages


def test_a_backlog_costs_no_memory(broker: Broker, tmp_path: Path) -> None:
    """Thirty thousand documents are worked off under the bound, and memory does not grow."""
    with MemoryTrial(broker, tmp_path) as trial:
        count = trial.written() + trial.write(short(30_000))
        with trial.sampled() as usages:
            assert trial.wait(lambda: trial.written() >= count, 240)
    for usage in usages:
        assert usage.good, str(usage)
        assert usage.last <= usage.first + 100 * MIB, str(usage)


def test_large_documents_before_a_stopped_table(broker: Broker, tmp_path: Path) -> None:
    """Documents that together exceed the bound wait in the topic while the table is stopped."""
    with MemoryTrial(broker, tmp_path, BUDGET) as trial:
        usages = stopped(trial)
    for usage in usages:
        assert usage.good, str(usage)


def test_without_the_budget_the_bound_is_exceeded(broker: Broker, tmp_path: Path) -> None:
    """With the budget of bytes off the same uses more, so the test above can fail."""
    most = sum(
        bound(MemoryTrial(broker, tmp_path, BUDGET).parsed, PARTITIONS, DIMENSION, 0).values()
    )
    off = {"HEADRACE_SOURCE__MAX_IN_FLIGHT_BYTES": str(1 << 40)}
    folder = tmp_path / "off"
    folder.mkdir()
    with MemoryTrial(broker, folder, off) as trial:
        usages = stopped(trial)
    assert max(usage.peak - usage.idle for usage in usages) > most
