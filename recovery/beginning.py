"""Where a new consumer group begins that goes on from another one's progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import TopicPartition

from operators.records import Lane

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clients.kafka import KafkaConfig

__all__ = ["begin_at"]


def begin_at(kafka: KafkaConfig, progress: Mapping[str, int], fingerprint: str) -> None:
    """Let the group begin where a table stands, in those lanes of which it knows nothing.

    Where it has an offset a flow has worked, and that one's is the truth.

    Args:
        kafka: The broker, and the group.
        progress: The table's next offset of each lane, by the lane's key.
        fingerprint: The model's, which is noted with each offset.

    Raises:
        BrokerError: The broker can't be reached or refuses.
    """
    # Nothing is fenced yet: a dead run's transaction may be open, and must not be waited for.
    consumer = kafka.observer()
    try:
        lanes = {Lane.parse(key): offset for key, offset in progress.items()}
        unknown = [
            TopicPartition(lane.topic, lane.partition, offset, fingerprint)
            for lane, offset in lanes.items()
            if kafka.committed(consumer, lane.topic, lane.partition) is None
        ]
        if unknown:
            kafka.commit(consumer, unknown)
    finally:
        consumer.close()
