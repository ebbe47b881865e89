"""What a single document can't go below: the least latency that model and broker allow.

One document at a time, with nothing else at work and no dataflow around it: its text alone in the
model, and a bare transaction of one record until a `read_committed` consumer has it. A flow that
gets one document a second adds to their sum only what it costs itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

from confluent_kafka import TopicPartition

from harness.process import HarnessError
from operators.records import Lane
from recovery.fencing import fenced_producer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from confluent_kafka import Consumer, Producer

    from clients.kafka import KafkaConfig
    from harness.workload import Topics
    from operators.embed import TextEncoder

__all__ = ["Floor", "floor"]

_WARM: Final = 5
_TIMEOUT_S: Final = 30.0
_PAUSE_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Floor:
    """Medians in milliseconds.

    Attributes:
        model_ms: A short text alone, from characters to vector.
        transaction_ms: From `begin_transaction` until a consumer has the record.
    """

    model_ms: float
    transaction_ms: float


def floor(encoder: TextEncoder, kafka: KafkaConfig, topics: Topics, texts: Sequence[str]) -> Floor:
    """Measures both, a text of `texts` at a time.

    Raises:
        HarnessError: The consumer did not see a record in time.
    """
    lane = Lane(topics.source, 0)
    producer, consumer = fenced_producer(kafka, lane), kafka.consumer()
    # As a flow's sink does: with a coordinator that is only being made, librdkafka's next call for
    # the group was seen to hang.
    kafka.committed(consumer, lane.topic, lane.partition)
    consumer.assign([TopicPartition(topics.embeddings, 0, 0)])
    try:
        bare = _Bare(producer, consumer, topics)
        transactions = _times(texts, bare.pass_on)
    finally:
        consumer.close()
    return Floor(_times(texts, lambda text: encoder.encode([text])), transactions)


def _times(texts: Sequence[str], step: Callable[[str], object]) -> float:
    """The median of how long a step takes, in milliseconds, with a pause before each."""
    taken: list[float] = []
    for text in texts:
        time.sleep(_PAUSE_S)
        began = time.perf_counter()
        step(text)
        taken.append(time.perf_counter() - began)
    return 1000 * median(taken[_WARM:])


@dataclass
class _Bare:
    """Transactions as a flow's, of one record and its offset, and nothing else."""

    producer: Producer
    consumer: Consumer
    topics: Topics
    done: int = 0

    def pass_on(self, text: str) -> None:
        """Commits a record, and waits until it can be read."""
        group = self.consumer.consumer_group_metadata()
        self.done += 1
        position = TopicPartition(self.topics.source, 0, self.done)
        self.producer.begin_transaction()
        self.producer.produce(self.topics.embeddings, text, "document")
        self.producer.send_offsets_to_transaction([position], group, _TIMEOUT_S)
        self.producer.commit_transaction(_TIMEOUT_S)
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            message = self.consumer.poll(0.1)
            if message is not None and message.error() is None:
                return
            if time.monotonic() > deadline:
                raise HarnessError(f"topic {self.topics.embeddings}: a record did not come")
