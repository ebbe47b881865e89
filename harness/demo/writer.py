"""Writes records at an even rate."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from harness.demo.background import Background
from harness.process import HarnessError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from confluent_kafka import KafkaError, Message

    from clients.kafka import KafkaConfig
    from harness.demo.documents import Record

__all__ = ["Writer"]


class Writer(Background):
    """Writes records at an even rate.

    Args:
        kafka: The broker.
        topic: Where to.
        records: What.
        rate: Records a second.

    Attributes:
        sent: How many have been acknowledged.
    """

    def __init__(
        self, kafka: KafkaConfig, topic: str, records: Iterable[Record], rate: float
    ) -> None:
        super().__init__("demo-writer")
        self.sent = 0
        self._producer = kafka.producer()
        self._topic = topic
        self._records = records
        self._rate = rate
        self._failure: str | None = None

    def check(self) -> None:
        """Look whether all is well.

        Raises:
            HarnessError: A record was refused.
        """
        if self._failure is not None:
            raise HarnessError(f"topic {self._topic}: not written: {self._failure}")

    def _run(self) -> None:
        started = time.monotonic()
        for number, (key, value) in enumerate(self._records):
            if self._stopping.wait(max(0.0, started + number / self._rate - time.monotonic())):
                return
            self._producer.produce(self._topic, value, key, on_delivery=self._delivered)
            self._producer.poll(0)
        while self._producer.flush(0.2) and not self._stopping.is_set():
            pass

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            self.sent += 1
        else:
            self._failure = error.str()
