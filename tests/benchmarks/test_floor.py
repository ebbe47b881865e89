from __future__ import annotations

import time
from typing import TYPE_CHECKING

from confluent_kafka import TopicPartition

from benchmarks import floor as module
from benchmarks.floor import floor
from clients.kafka import KafkaConfig
from harness.workload import Topics, make_topics
from tests.samples import encoded

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from harness.broker import Broker
    from operators.encoding import Encoded, Input


class Slow:
    """A model that takes 20 ms for a text."""

    def encode(self, texts: Sequence[Input]) -> list[Encoded]:
        """The texts' encodings."""
        time.sleep(0.02)
        return [encoded(str(text)) for text in texts]


def test_medians_of_the_model_and_of_transactions_that_are_seen(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each text passes through the model and a real transaction, by itself."""
    monkeypatch.setattr(module, "_PAUSE_S", 0.05)
    topics = Topics("floor-source", "floor-vectors", "floor-dead")
    make_topics(broker.bootstrap_servers, topics, 1)
    kafka = KafkaConfig(broker.bootstrap_servers, "floor")
    found = floor(Slow(), kafka, topics, ["a text"] * 8)
    assert 20 <= found.model_ms < 2000
    assert 0 < found.transaction_ms < 10_000
    where = TopicPartition(topics.embeddings, 0)
    reader = kafka.consumer()
    assert reader.get_watermark_offsets(where, timeout=10)[1] >= 16  # a record and a mark for each
    reader.close()
