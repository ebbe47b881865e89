from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicPartition

from operators.records import Lane
from recovery.errors import RecoveryError
from recovery.fencing import fenced_producer
from recovery.model import check_model
from tests.brokers import config_of, topic_on

if TYPE_CHECKING:
    from clients.kafka import KafkaConfig
    from harness.broker import Broker

pytestmark = pytest.mark.kafka


def send_offset(config: KafkaConfig, lane: Lane, note: str, *, commit: bool) -> object:
    """Begin a transaction with an offset and a note, and commit it or leave it open."""
    producer = fenced_producer(config, lane)
    group = config.consumer().consumer_group_metadata()
    producer.begin_transaction()
    place = TopicPartition(lane.topic, lane.partition, 1, note)
    producer.send_offsets_to_transaction([place], group, 10)
    if commit:
        producer.commit_transaction(10)
    return producer


def test_another_model_is_refused(broker: Broker) -> None:
    """A fingerprint that is noted with an offset is the only one that may go on."""
    config, lane = config_of(broker), Lane(topic_on(broker), 0)
    check_model(config, [lane], "m", "one")
    send_offset(config, lane, "one", commit=True)
    check_model(config, [lane], "m", "one")
    with pytest.raises(RecoveryError, match=r"kafka\.application_id"):
        check_model(config, [lane], "m", "two")


def test_an_open_transaction_is_not_waited_for(broker: Broker) -> None:
    """What a killed run left open does not hold up the check: nothing is fenced yet."""
    config, lane = config_of(broker), Lane(topic_on(broker), 0)
    send_offset(config, lane, "one", commit=True)
    left_open = send_offset(config, lane, "one", commit=False)
    started = time.monotonic()
    check_model(config, [lane], "m", "one")
    assert time.monotonic() - started < 30, "it waited for the transaction's own time-out"
    del left_open
