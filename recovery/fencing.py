"""Fencing: only one producer a lane can commit, the one that initialised its id last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from confluent_kafka import Producer

    from clients.kafka import KafkaConfig, Option
    from operators.records import Lane

__all__ = ["fence", "fenced_producer"]

INIT_TIMEOUT_S: Final = 10.0


def fenced_producer(kafka: KafkaConfig, lane: Lane, **extra: Option) -> Producer:
    """The lane's transactional producer; every earlier one is fenced, its transaction settled.

    The transactional id is named by topic and partition and so stays with the lane whatever the
    number of workers, processes or partitions. Its separator is in no name of an application or
    a topic, so no two applications can fence each other by chance.

    Raises:
        BrokerError: The broker can't be reached or refuses.
    """
    producer = kafka.transactional_producer(lane.key.replace("/", ":"), **extra)
    kafka.patiently(f"fencing {lane}", lambda: producer.init_transactions(INIT_TIMEOUT_S))
    return producer


def fence(kafka: KafkaConfig, lane: Lane) -> None:
    """Fence every producer of the lane, so that its committed offset moves no more.

    Raises:
        BrokerError: The broker can't be reached or refuses.
    """
    fenced_producer(kafka, lane)
