"""The load generator: a backlog that appears at once, or documents at a steady pace."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import orjson
from confluent_kafka import KafkaError, KafkaException, Message, Producer

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Generator", "Paced", "Written"]

_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Written:
    """A document in the source topic.

    Attributes:
        key: Its id; none comes twice.
        partition: Where it is.
        offset: Its offset there.
        timestamp: When it was handed to the producer, in seconds.
    """

    key: bytes
    partition: int
    offset: int
    timestamp: float


@dataclass(frozen=True, slots=True)
class Paced:
    """How a load went.

    Attributes:
        documents: What was sent.
        seconds: From the first to the last.
        late_p99_ms: How far behind its due time a document was sent, at the 99th percentile.
    """

    documents: Sequence[Written]
    seconds: float
    late_p99_ms: float


@dataclass
class Generator:
    """Sends documents, one partition after the other.

    Args:
        bootstrap_servers: The broker.
        sampled: Share of the documents whose `traceparent` says that they are to be followed; the
            others' says that they are not. None: they have none.
    """

    bootstrap_servers: str
    sampled: float | None = None
    _failed: list[KafkaError] = field(default_factory=list, init=False)
    _written: list[Written] = field(default_factory=list, init=False)
    _sent: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        common: dict[str, str | int | float | bool] = {
            "bootstrap.servers": self.bootstrap_servers,
            "log_level": 3,
        }
        # A document leaves at once, so that its timestamp is when it left.
        self._single = Producer({**common, "linger.ms": 0})
        name = f"benchmarks-{uuid.uuid4().hex}"
        self._bulk = Producer({**common, "transactional.id": name, "compression.type": "lz4"})
        self._bulk.init_transactions(_TIMEOUT_S)

    def backlog(self, topic: str, partitions: int, texts: Sequence[str]) -> list[Written]:
        """Sends documents that no reader sees before `reveal`: in an open transaction."""
        self._bulk.begin_transaction()
        for text in texts:
            self._produce(self._bulk, topic, partitions, text)
            self._bulk.poll(0)
        return self._flush(self._bulk)

    def reveal(self) -> float:
        """Lets readers see the backlog.

        Returns:
            The time just before.
        """
        now = time.time()
        self._bulk.commit_transaction(_TIMEOUT_S)
        return now

    def pace(self, topic: str, partitions: int, texts: Sequence[str], rate: float) -> Paced:
        """Sends so many documents a second, evenly, whatever becomes of them."""
        late: list[float] = []
        started = time.monotonic()
        for index, text in enumerate(texts):
            due = started + index / rate
            while (ahead := due - time.monotonic()) > 0:
                time.sleep(ahead)
            self._produce(self._single, topic, partitions, text)
            late.append(time.monotonic() - due)
            self._single.poll(0)
        took = time.monotonic() - started
        documents = self._flush(self._single)
        return Paced(documents, took, float(np.percentile(late, 99)) * 1000 if late else 0.0)

    def _produce(self, producer: Producer, topic: str, partitions: int, text: str) -> None:
        producer.produce(
            topic,
            orjson.dumps({"text": text, "metadata": {"number": self._sent}}),
            f"document-{self._sent}",
            partition=self._sent % partitions,
            headers=self._headers(),
            on_delivery=self._delivered,
        )
        self._sent += 1

    def _headers(self) -> list[tuple[str, str | bytes | None]]:
        if self.sampled is None:
            return []
        number = self._sent + 1  # an id of zeros alone is none
        followed = int(number * self.sampled) > int(self._sent * self.sampled)
        return [("traceparent", f"00-{number:032x}-{number:016x}-{int(followed):02x}")]

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed.append(error)
            return
        key, (_, timestamp) = message.key(), message.timestamp()
        partition, offset = message.partition(), message.offset()
        assert isinstance(key, bytes)
        assert partition is not None
        assert offset is not None
        self._written.append(Written(key, partition, offset, timestamp / 1000))

    def _flush(self, producer: Producer) -> list[Written]:
        left = producer.flush(_TIMEOUT_S)
        if left or self._failed:
            raise KafkaException(self._failed[0] if self._failed else KafkaError._TIMED_OUT)  # noqa: SLF001
        written, self._written = self._written, []
        return written
