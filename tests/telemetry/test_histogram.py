from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from telemetry.histogram import BatchHistogram

BOUNDS = (1.0, 2.5, 10.0)
VALUES = st.lists(st.floats(0, 20) | st.sampled_from(BOUNDS), max_size=20)


def lines(registry: CollectorRegistry) -> list[str]:
    """What Prometheus reads, without the creation times that only the client's own has."""
    text = generate_latest(registry).decode()
    return [line for line in text.splitlines() if "_created" not in line]


@given(st.lists(st.tuples(st.sampled_from(["topic", "table"]), VALUES), max_size=6))
def test_counts_as_the_clients_own_histogram(taken: list[tuple[str, list[float]]]) -> None:
    """Whatever is observed, in whatever batches, Prometheus reads the same numbers."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    batched = BatchHistogram("age_ms", "Age.", "sink", BOUNDS, ours)
    single = Histogram("age_ms", "Age.", ("sink",), buckets=BOUNDS, registry=theirs)
    for label, values in taken:
        batched.observe(label, [round(value, 1) for value in values])
        single.labels(label)
        for value in values:
            single.labels(label).observe(round(value, 1))
    assert [line for line in lines(ours) if "_sum" not in line] == [
        line for line in lines(theirs) if "_sum" not in line
    ]
    for one, other in zip(lines(ours), lines(theirs), strict=True):
        if "_sum" in one:
            assert abs(float(one.split()[-1]) - float(other.split()[-1])) < 1e-6
