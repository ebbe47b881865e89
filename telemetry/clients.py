"""Metrics of the Kafka clients of a process, from what librdkafka tells of them."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from clients.statistics import Statistics

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from prometheus_client import CollectorRegistry

    from clients.kafka import Option

__all__ = ["ClientMetrics", "Meter", "interval_s"]

LEAST_INTERVAL_S: Final = 1.0

CLIENT_S: Final = 0.33e-3
PARTITION_S: Final = 0.014e-3
"""What it takes a client to tell of itself, and more for each partition of its topic, in seconds
of a core: most of it is librdkafka's."""

FRESH: Final = 3
"""For how many intervals what a client told holds."""

CORE_SHARE: Final = 0.005
"""How much of a core all clients of a process may take for that."""


def interval_s(lanes: int) -> float:
    """How often a client should tell of itself when a flow has so many lanes, in seconds.

    A lane has two clients, so the work grows with the square of the lanes: a hundred lanes tell
    of themselves once a minute.
    """
    round_s = 2 * lanes * (CLIENT_S + PARTITION_S * lanes)
    return max(LEAST_INTERVAL_S, round_s / CORE_SHARE)


class Meter:
    """Takes what one client tells.

    Args:
        every_s: How often it tells, in seconds; 0 for never.

    Attributes:
        latest: What it told last; None before that.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._told_at = 0.0
        self.latest: Statistics | None = None

    @property
    def fresh(self) -> Statistics | None:
        """What it told last, unless that is long ago: it tells only while it is polled."""
        age_s = time.monotonic() - self._told_at
        return self.latest if age_s < FRESH * self._every_s else None

    @property
    def options(self) -> Mapping[str, Option]:
        """The client's options for it. The client must be polled, or what it tells piles up."""
        if not self._every_s:
            return {}
        return {
            "statistics.interval.ms": int(1000 * self._every_s),
            "stats_cb": self._take,
        }

    def _take(self, text: str) -> None:
        self.latest = Statistics.parse(text)
        self._told_at = time.monotonic()


class ClientMetrics(Collector):
    """What all clients of a process say together.

    Args:
        registry: Where they are registered.
        every_s: How often each client tells of itself, in seconds; 0 for never.
    """

    def __init__(self, registry: CollectorRegistry, every_s: float = 0.0) -> None:
        self._every_s = every_s
        self._readers: dict[str, Meter] = {}
        self._others: dict[str, Meter] = {}
        registry.register(self)

    def reader(self, name: str) -> Meter:
        """What takes the statistics of a client that fetches.

        Its round trips are no measure of the broker, which holds a fetch back for half a second
        while a topic has nothing new.
        """
        meter = self._readers[name] = Meter(self._every_s)
        return meter

    def other(self, name: str, least_s: float = 0.0) -> Meter:
        """What takes the statistics of a client that produces or only asks.

        Args:
            name: The client's.
            least_s: The least time that it should tell of, in seconds.
        """
        every_s = max(self._every_s, least_s) if self._every_s else 0.0
        meter = self._others[name] = Meter(every_s)
        return meter

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges as the clients last told."""
        readers, others = _told(self._readers), _told(self._others)
        yield _round_trips(others)
        yield from _ahead(readers)
        queued = GaugeMetricFamily(
            "headrace_send_queue_records", "Records in the producers' queues."
        )
        if others:
            queued.add_metric([], sum(one.queued for one in others))
        yield queued


def _told(meters: Mapping[str, Meter]) -> list[Statistics]:
    # A copy first: a lane may be added meanwhile.
    return [meter.latest for meter in list(meters.values()) if meter.latest is not None]


def _round_trips(told: Sequence[Statistics]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "headrace_broker_rtt_ms",
        "Mean time from a request to its answer, in ms.",
        labels=["broker"],
    )
    count: defaultdict[str, int] = defaultdict(int)
    total: defaultdict[str, float] = defaultdict(float)
    for statistics in told:
        for broker, taken in statistics.round_trips.items():
            count[broker] += taken.count
            total[broker] += taken.total_ms
    for broker, number in count.items():
        family.add_metric([broker], total[broker] / number)
    return family


def _ahead(told: Sequence[Statistics]) -> Iterator[GaugeMetricFamily]:
    lane = ["topic", "partition"]
    records = GaugeMetricFamily(
        "headrace_fetch_queue_records", "Records read ahead and not yet taken.", labels=lane
    )
    size = GaugeMetricFamily("headrace_fetch_queue_bytes", "Bytes of those records.", labels=lane)
    for statistics in told:
        for (topic, partition), ahead in statistics.ahead.items():
            records.add_metric([topic, str(partition)], ahead.records)
            size.add_metric([topic, str(partition)], ahead.size)
    yield records
    yield size
