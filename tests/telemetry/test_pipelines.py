"""The metrics of several pipelines of one process."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from telemetry.metrics import Metrics
from telemetry.pipelines import PipelineMetrics
from telemetry.scrape import read_totals
from tests.samples import dead_letter, embedding, outcomes


@given(counts=st.dictionaries(st.sampled_from(["a", "b-c", "d"]), st.integers(0, 9), min_size=1))
def test_each_is_told_apart(counts: dict[str, int]) -> None:
    """Every series is shown once for each pipeline that has it, under its name and as it was."""
    registry = CollectorRegistry()
    together = PipelineMetrics(registry)
    for name, count in counts.items():
        own = Metrics(pipeline=name)
        rows = [embedding(f"{number}") for number in range(count)]
        own.committed("topic", [outcomes([*rows, dead_letter("bad_json")])], 0.01)
        own.lag.labels("documents", "0").set(count)
        together.add(name, own.registry)
    text = generate_latest(registry).decode()
    kinds = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(kinds) == len(set(kinds))
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert all('pipeline="' in line for line in samples)
    assert len(samples) == len(set(samples))
    for name, count in counts.items():
        found = read_totals([text], pipeline=name)
        assert found.topic == count + 1
        assert found.dead == {"bad_json": 1}
        assert found.lag == {("documents", 0): count}
    assert read_totals([text]).topic == sum(counts.values()) + len(counts)


def test_the_process_is_none_of_theirs() -> None:
    """What is a process's own is not among a pipeline's metrics; a lone flow has no label."""
    own = {metric.name for metric in Metrics(pipeline="a").registry.collect()}
    lone = {metric.name for metric in Metrics().registry.collect()}
    assert lone - own == {
        "headrace_cpu_utilization",
        "headrace_resident_memory_bytes",
        "headrace_start_time_seconds",
    }
    assert "pipeline=" not in generate_latest(Metrics().registry).decode()
