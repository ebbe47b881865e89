from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaException

from operators.records import Lane
from recovery.fencing import fence, fenced_producer
from tests.brokers import config_of, read_all, topic_on

if TYPE_CHECKING:
    from confluent_kafka import Producer

    from harness.broker import Broker

pytestmark = pytest.mark.kafka


def commit(producer: Producer, topic: str, value: bytes) -> None:
    """One record in one transaction."""
    producer.begin_transaction()
    producer.produce(topic, value)
    producer.commit_transaction(20)


def test_the_last_one_can_commit(broker: Broker) -> None:
    """Only the producer that initialised the lane's id last commits; lanes don't fence others."""
    topic = topic_on(broker)
    config = config_of(broker)
    first = fenced_producer(config, Lane(topic, 0))
    other = fenced_producer(config, Lane(topic, 1))
    commit(first, topic, b"first")
    second = fenced_producer(config, Lane(topic, 0))
    with pytest.raises(KafkaException):
        commit(first, topic, b"fenced")
    commit(second, topic, b"second")
    commit(other, topic, b"other")
    assert [m.value() for m in read_all(broker, topic)] == [b"first", b"second", b"other"]


def test_an_open_transaction_is_settled(broker: Broker) -> None:
    """After fencing, what a dead producer had open holds up no reader and is seen by none."""
    topic = topic_on(broker)
    config = config_of(broker)
    dead = fenced_producer(config, Lane(topic, 0))
    dead.begin_transaction()
    dead.produce(topic, b"open")
    dead.flush(10)
    fence(config, Lane(topic, 0))
    commit(fenced_producer(config, Lane(topic, 0)), topic, b"after")
    assert [m.value() for m in read_all(broker, topic)] == [b"after"]


def test_applications_do_not_fence_each_other(broker: Broker) -> None:
    """Ids of two applications differ, whatever their names and topics are."""
    topic = topic_on(broker)
    one = fenced_producer(config_of(broker, f"{topic}-x"), Lane("t", 0))
    fence(config_of(broker, topic), Lane("x-t", 0))
    commit(one, topic, b"one")
    assert [m.value() for m in read_all(broker, topic)] == [b"one"]
