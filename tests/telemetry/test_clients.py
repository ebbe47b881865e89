from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from telemetry.clients import CORE_SHARE, ClientMetrics, Meter, interval_s

if TYPE_CHECKING:
    from collections.abc import Mapping


def tell(meter: Meter, **told: object) -> None:
    """As librdkafka does."""
    callback = meter.options["stats_cb"]
    assert callable(callback)
    callback(json.dumps(told))


def rtt(count: int, total_us: int, name: str = "kafka:9092") -> dict[str, object]:
    """A broker that answered so many requests."""
    taken = {"cnt": count, "sum": total_us}
    return {name: {"nodename": name, "source": "learned", "rtt": taken}}


def partition(number: int, records: int, state: str = "active") -> Mapping[str, object]:
    """A partition as a consumer tells of it."""
    return {
        "partition": number,
        "fetch_state": state,
        "fetchq_cnt": records,
        "fetchq_size": 10 * records,
        "ls_offset": 3,
    }


def test_clients_add_up() -> None:
    """Queues are summed, a broker's round trips averaged over all requests of the interval."""
    registry = CollectorRegistry()
    clients = ClientMetrics(registry, 1.0)
    one, two = clients.other("one"), clients.other("two")
    value = registry.get_sample_value
    assert value("headrace_send_queue_records") is None
    tell(one, msg_cnt=3, brokers=rtt(1, 9000))
    tell(two, msg_cnt=4, brokers=rtt(2, 3000) | rtt(1, 1000, "other:9092"))
    assert value("headrace_send_queue_records") == 7
    assert value("headrace_broker_rtt_ms", {"broker": "kafka:9092"}) == pytest.approx(4)
    assert value("headrace_broker_rtt_ms", {"broker": "other:9092"}) == pytest.approx(1)
    tell(two, msg_cnt=0)
    assert value("headrace_send_queue_records") == 3
    assert value("headrace_broker_rtt_ms", {"broker": "other:9092"}) is None


def test_readers_tell_of_their_lanes() -> None:
    """What is read ahead is there by lane; how long a fetch was held back is not."""
    registry = CollectorRegistry()
    clients = ClientMetrics(registry, 1.0)
    partitions = {"0": partition(0, 5), "1": partition(1, 9, "none"), "-1": partition(-1, 0, "")}
    topics = {"documents": {"partitions": partitions}}
    tell(clients.reader("lane"), topics=topics, brokers=rtt(1, 500_000))
    found = {
        (sample.name, sample.labels["partition"]): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name.startswith("headrace_fetch")
    }
    assert found == {
        ("headrace_fetch_queue_records", "0"): 5,
        ("headrace_fetch_queue_bytes", "0"): 50,
    }
    assert registry.get_sample_value("headrace_broker_rtt_ms", {"broker": "kafka:9092"}) is None


def test_without_metrics_clients_tell_nothing() -> None:
    """A client that nobody asks is not made to tell."""
    clients = ClientMetrics(CollectorRegistry())
    assert clients.reader("lane").options == {}
    assert clients.other("watch", 10.0).options == {}


def test_an_interval_is_the_longer_one() -> None:
    """A client that asks rarely tells of a time in which it has asked."""
    clients = ClientMetrics(CollectorRegistry(), 2.0)
    assert clients.other("writer").options["statistics.interval.ms"] == 2000
    assert clients.other("watch", 10.0).options["statistics.interval.ms"] == 10_000


def test_many_lanes_tell_less_often() -> None:
    """Few lanes tell each second; the cost of all of them together stays what it may be."""
    assert interval_s(2) == interval_s(6) == 1.0
    assert interval_s(100) == pytest.approx(69, abs=1)
    for lanes in (10, 100, 1000):
        assert 2 * lanes * (0.33e-3 + 0.014e-3 * lanes) / interval_s(lanes) <= 1.01 * CORE_SHARE
