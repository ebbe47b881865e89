import pytest
from prometheus_client import CollectorRegistry

from benchmarks import meters
from benchmarks.usage import growth
from harness.process import HOST, free_port
from telemetry.metrics import Metrics
from telemetry.probes import serve


def test_shares_come_from_the_flows_own_metrics() -> None:
    """What the metrics count between two looks, over two processes, is put into shares."""
    ports = free_port()
    served = [Metrics(CollectorRegistry()) for _ in range(2)]
    for number, metrics in enumerate(served):
        serve(HOST, ports + number, metrics.registry, {})
        metrics.inference(1, 5, 5, 9.0)  # before the first look, so it does not count
    before = meters.read(ports, 2)
    for metrics in served:
        metrics.inference(4, 75, 100, 0.5)
        metrics.embedded(tokens=75, truncated=0, cached=1, reused=0)
        metrics.consumed.labels("documents", "0").inc(4)
        metrics.committed("topic", [], 0.25)
        metrics.committed("table", [], 0.1)
    found = meters.shares(growth(meters.read(ports, 2), before), worker_s=4.0)
    assert found == pytest.approx(
        {
            "stage_model": 0.25,
            "stage_transactions": 0.125,
            "stage_merges": 0.05,
            "padding": 0.25,
            "cache_hits": 0.25,
        }
    )


def test_nothing_counted_is_no_share() -> None:
    """A stretch without texts has neither padding nor hits."""
    assert set(meters.shares({}, worker_s=1.0).values()) == {0.0}
