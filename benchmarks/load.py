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

__all__ = ["Generator", "Paced"]

_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Paced:
    """How a load went.

    Attributes:
        docs: Documents sent.
        seconds: From the first to the last.
        late_p99_ms: How far behind its due time a document was sent, at the 99th percentile.
    """

    docs: int
    seconds: float
    late_p99_ms: float


@dataclass
class Generator:
    """Sends documents, one partition after the other.

    Args:
        bootstrap_servers: The broker.
    """

    bootstrap_servers: str
    _failed: list[KafkaError] = field(default_factory=list, init=False)
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

    def backlog(self, topic: str, partitions: int, texts: Sequence[str]) -> None:
        """Sends documents that no reader sees before `reveal`: in an open transaction."""
        self._bulk.begin_transaction()
        for text in texts:
            self._produce(self._bulk, topic, partitions, text)
            self._bulk.poll(0)
        self._flush(self._bulk)

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
        self._flush(self._single)
        return Paced(len(texts), took, float(np.percentile(late, 99)) * 1000 if late else 0.0)

    def _produce(self, producer: Producer, topic: str, partitions: int, text: str) -> None:
        producer.produce(
            topic,
            orjson.dumps({"text": text, "metadata": {"number": self._sent}}),
            f"document-{self._sent}",
            partition=self._sent % partitions,
            on_delivery=self._delivered,
        )
        self._sent += 1

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failed.append(error)

    def _flush(self, producer: Producer) -> None:
        left = producer.flush(_TIMEOUT_S)
        if left or self._failed:
            raise KafkaException(self._failed[0] if self._failed else KafkaError._TIMED_OUT)  # noqa: SLF001
