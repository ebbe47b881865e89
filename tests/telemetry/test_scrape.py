"""A flow's metrics read by another program."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from telemetry.metrics import Metrics
from telemetry.scrape import Totals, percentile, read_totals
from tests.samples import dead_letter, embedding, outcomes


def exposition(records: int, lag: int, partition: int) -> str:
    """The metrics of a process that has committed so many records."""
    metrics = Metrics()
    rows = [embedding(f"{number}") for number in range(records)]
    metrics.committed("topic", [outcomes([*rows, dead_letter("bad_json")])], 0.01)
    metrics.lag.labels("documents", str(partition)).set(lag)
    return generate_latest(metrics.registry).decode()


def test_several_processes_add_up() -> None:
    """Counts are those of all processes; each partition has one."""
    found = read_totals([exposition(3, 7, 0), exposition(2, 9, 1)])
    assert found.topic == 7
    assert found.dead == {"bad_json": 2}
    assert found.lag == {("documents", 0): 7, ("documents", 1): 9}
    assert max(found.ages["topic"].values()) == 7


def test_another_flow_is_left_out() -> None:
    """A flow on other topics may have its metrics at the next port."""
    both = [exposition(3, 7, 0), exposition(2, 9, 1).replace('"documents"', '"views"')]
    assert read_totals(both, ["documents"]).topic == 4
    assert read_totals(both).topic == 7


def test_only_what_came_since_counts() -> None:
    """Ages are those of the records between two looks."""
    before, after = read_totals([exposition(3, 0, 0)]), read_totals([exposition(5, 0, 0)])
    assert max(after.ages_since(before, "topic").values()) == 2
    assert max(after.ages_since(Totals(), "topic").values()) == 6
    assert after.ages_since(before, "table") == {}


def test_percentiles_within_a_bucket() -> None:
    """Records are taken to be evenly spread within their bucket."""
    assert percentile({10.0: 0.0, 20.0: 10.0, float("inf"): 10.0}, 0.5) == 15.0
    assert percentile({10.0: 4.0, float("inf"): 5.0}, 0.99) == 10.0
    assert percentile({}, 0.5) is None
    assert percentile({10.0: 0.0, float("inf"): 0.0}, 0.5) is None


@given(st.lists(st.floats(0.1, 999), min_size=1, max_size=50), st.sampled_from([0.5, 0.9, 0.99]))
def test_percentiles_are_in_the_right_bucket(ages: list[float], share: float) -> None:
    """Whatever the ages, the percentile is in the bucket of the true one."""
    bounds = [1.0, 10.0, 100.0, 1000.0, float("inf")]
    counts = {bound: float(sum(age <= bound for age in ages)) for bound in bounds}
    found = percentile(counts, share)
    true = float(np.quantile(ages, share, method="inverted_cdf"))
    assert found is not None
    upper = next(bound for bound in bounds if true <= bound)
    lower = max([0.0, *(bound for bound in bounds if bound < upper)])
    assert lower <= found <= upper


def test_what_is_no_exposition() -> None:
    """Another server at that address is told from a flow."""
    with pytest.raises(ValueError, match="html"):
        read_totals(["<html>"])
