"""A flow's metrics as another program reads them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from prometheus_client.parser import text_string_to_metric_families

from telemetry.pipelines import LABEL

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

__all__ = ["Totals", "percentile", "read_totals"]

WANTED: Final = frozenset(
    {
        "headrace_records_sent_total",
        "headrace_consumer_lag",
        "headrace_dead_letters_total",
        "headrace_freshness_ms_bucket",
    }
)


@dataclass(frozen=True)
class Totals:
    """What all processes of a flow have counted so far.

    Attributes:
        sent: Records that each sink has committed.
        lag: Offsets not yet read, by topic and partition.
        dead: Dead letters by code.
        ages: How many records were at most so many milliseconds old when a sink had committed
            them: by sink, then by the bucket's bound.
    """

    sent: Mapping[str, float] = field(default_factory=dict)
    lag: Mapping[tuple[str, int], float] = field(default_factory=dict)
    dead: Mapping[str, float] = field(default_factory=dict)
    ages: Mapping[str, Mapping[float, float]] = field(default_factory=dict)

    @property
    def topic(self) -> float:
        """Records that are on the topic."""
        return self.sent.get("topic", 0.0)

    def ages_since(self, before: Totals, sink: str) -> dict[float, float]:
        """How many records were at most so old, of those committed since."""
        earlier = before.ages.get(sink, {})
        return {
            bound: count - earlier.get(bound, 0.0)
            for bound, count in sorted(self.ages.get(sink, {}).items())
        }


def read_totals(
    expositions: Iterable[str], topics: Collection[str] = (), pipeline: str = ""
) -> Totals:
    """What several processes' metrics say together.

    Args:
        expositions: Each process's metrics, in Prometheus' text format.
        topics: Where some are given, a process that reads none of them is left out.
        pipeline: Where one is given, the others' are left out.

    Raises:
        ValueError: One is in no such format.
    """
    sent: defaultdict[str, float] = defaultdict(float)
    lag: dict[tuple[str, int], float] = {}
    dead: defaultdict[str, float] = defaultdict(float)
    ages: defaultdict[str, defaultdict[float, float]] = defaultdict(lambda: defaultdict(float))
    for exposition in expositions:
        samples = [
            sample
            for family in text_string_to_metric_families(exposition)
            for sample in family.samples
            if sample.name in WANTED and pipeline in {"", sample.labels.get(LABEL, "")}
        ]
        read = {s.labels["topic"] for s in samples if s.name == "headrace_consumer_lag"}
        if not topics or not read or read & set(topics):
            for name, labels, value, *_ in samples:
                if name == "headrace_records_sent_total":
                    sent[labels["sink"]] += value
                elif name == "headrace_consumer_lag":
                    lag[labels["topic"], int(labels["partition"])] = value
                elif name == "headrace_dead_letters_total":
                    dead[labels["code"]] += value
                else:
                    ages[labels["sink"]][float(labels["le"])] += value
    return Totals(dict(sent), lag, dict(dead), {sink: dict(own) for sink, own in ages.items()})


def percentile(ages: Mapping[float, float], share: float) -> float | None:
    """The age that so large a share of records was at most, evenly spread within a bucket.

    Args:
        ages: How many records were at most so old, by rising bound, the last without one.
        share: Between 0 and 1.

    Returns:
        Milliseconds; None where there are no records. The last bound for what lies beyond it.
    """
    total = max(ages.values(), default=0.0)
    if total <= 0:
        return None
    below, lower = 0.0, 0.0
    for bound, count in ages.items():
        if count >= share * total:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (share * total - below) / (count - below)
        below, lower = count, bound
    return lower
