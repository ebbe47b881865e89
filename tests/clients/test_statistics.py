from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicPartition

from clients.statistics import RoundTrips, Statistics
from tests.brokers import config_of, send_values, topic_on
from tests.samples import until

if TYPE_CHECKING:
    from confluent_kafka import Message

    from clients.kafka import Option
    from harness.broker import Broker


def options(told: list[Statistics]) -> dict[str, Option]:
    """A client's that tells of itself twenty times a second."""
    return {
        "statistics.interval.ms": 50,
        "stats_cb": lambda text: told.append(Statistics.parse(text)),
    }


def test_round_trips_are_of_real_brokers() -> None:
    """Connections to one address count together; names that stand for all brokers don't."""

    def broker(name: str, source: str, count: int, total: int) -> dict[str, object]:
        return {"nodename": name, "source": source, "rtt": {"cnt": count, "sum": total}}

    brokers = {
        "a:1/1": broker("a:1", "learned", 2, 3000),
        "TxnCoordinator": broker("a:1", "logical", 1, 5000),
        "GroupCoordinator": broker("", "logical", 4, 9000),
        "b:1/2": broker("b:1", "learned", 0, 0),
        "all:1/bootstrap": broker("all:1", "configured", 3, 9000),
    }
    told = Statistics.parse(json.dumps({"brokers": brokers}))
    assert told.round_trips == {"a:1": RoundTrips(3, 8.0)}
    assert (told.queued, told.ahead) == (0, {})


@pytest.mark.kafka
def test_what_a_producer_has_not_sent(broker: Broker) -> None:
    """Records in its queue are counted, until the broker has them."""
    told: list[Statistics] = []
    topic = topic_on(broker)
    producer = config_of(broker).producer(**options(told), **{"linger.ms": 2000})
    for number in range(7):
        producer.produce(topic, b"value", b"%d" % number)

    def seen(queued: int) -> bool:
        producer.poll(0.05)
        return bool(told) and told[-1].queued == queued

    until(lambda: seen(7))
    until(lambda: seen(0))
    trips = [own.round_trips[broker.bootstrap_servers] for own in told if own.round_trips]
    assert all(0 < one.total_ms / one.count < 60_000 for one in trips)
    assert trips


@pytest.mark.kafka
def test_what_a_reader_has_ahead(broker: Broker) -> None:
    """Of a topic's partitions only the one that is read; its queue empties as it is taken."""
    told: list[Statistics] = []
    topic = topic_on(broker, partitions=3)
    send_values(broker, topic, *[b"v" * 100] * 40, partition=1)
    consumer = config_of(broker).consumer(**options(told))
    consumer.assign([TopicPartition(topic, 1, 0)])
    taken: list[Message] = []

    def empty() -> bool:
        taken.extend(consumer.consume(8, timeout=0.2))
        time.sleep(0.1)
        return len(taken) == 40 and told[-1].ahead[topic, 1].records == 0

    until(empty, timeout_s=20)
    ahead = [one.ahead[topic, 1] for one in told if one.ahead]
    # The word itself, or that the end is reached, may stand in the same queue.
    assert {one.size // 800 * 8 for one in ahead} <= {0, 8, 16, 24, 32, 40}
    assert all(one.records < one.size / 100 + 8 for one in ahead)
    most = max(ahead, key=lambda one: one.records)
    assert most.records > 0
    assert 100 * (most.records - 8) <= most.size < 200 * most.records
    assert ahead[-1].stable == 40
    assert {key for one in told for key in one.ahead} == {(topic, 1)}
    consumer.close()
