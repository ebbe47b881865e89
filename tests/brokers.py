"""Topics, records and clients on a real broker, for the tests of several folders."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from clients.kafka import KafkaConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from confluent_kafka import Message

    from harness.broker import Broker

_numbers = itertools.count()


def admin(broker: Broker) -> AdminClient:
    """A client for topics."""
    return AdminClient({"bootstrap.servers": broker.bootstrap_servers})


def topic_on(broker: Broker, partitions: int = 1, settings: Mapping[str, str] | None = None) -> str:
    """A topic of the test's own."""
    name = f"topic{next(_numbers)}"
    new = NewTopic(name, num_partitions=partitions, config=dict(settings or {}))
    client = admin(broker)
    client.create_topics([new])[name].result(20)
    return name


def config_of(
    broker: Broker, application: str | None = None, outage_s: float = 120.0
) -> KafkaConfig:
    """How the flow reaches the broker, as an application of the test's own."""
    name = application or f"app{next(_numbers)}"
    return KafkaConfig(broker.bootstrap_servers, name, outage_s=outage_s)


Record = tuple[bytes | None, bytes | None, list[tuple[str, str | bytes | None]]]


def send(broker: Broker, topic: str, records: Sequence[Record], partition: int = 0) -> None:
    """Produce records outside of a transaction."""
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "linger.ms": 1})
    for key, value, headers in records:
        producer.produce(topic, value, key, partition=partition, headers=headers)
    assert producer.flush(20) == 0


def send_values(broker: Broker, topic: str, *values: bytes, partition: int = 0) -> None:
    """Produce values under keys that are their numbers."""
    records: list[Record] = [(str(i).encode(), value, []) for i, value in enumerate(values)]
    send(broker, topic, records, partition)


def transact(broker: Broker, topic: str, count: int, *, commit: bool) -> None:
    """Produce so many records in a transaction, and commit or abort it."""
    producer = Producer(
        {"bootstrap.servers": broker.bootstrap_servers, "transactional.id": f"{topic}-tests"}
    )
    producer.init_transactions(20)
    producer.begin_transaction()
    for i in range(count):
        producer.produce(topic, b"%d" % i, b"t")
    producer.flush(20)
    if commit:
        producer.commit_transaction(20)
    else:
        producer.abort_transaction(20)


def read_all(broker: Broker, topic: str, partition: int = 0) -> list[Message]:
    """All records that a `read_committed` reader sees, up to the end as it is now."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "group.id": "tests",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0)])
    found: list[Message] = []
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is not None and message.error() is not None:
            break
        if message is not None:
            found.append(message)
    consumer.close()
    return found
