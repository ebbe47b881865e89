"""When records are on the topic and in the table, as a reader of both sees it."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from confluent_kafka import TopicPartition

from harness.demo.background import Background
from harness.demo.place import TABLE
from headrace.errors import HeadraceError
from operators.records import Lane
from sinks.schema import TableSchema
from sinks.store import LANCE_ERRORS, TableStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    import lance

    from clients.kafka import KafkaConfig

__all__ = ["LOOK_S", "Counts", "Watch"]

LOOK_S: Final = 0.01
"""How often it looks."""


@dataclass
class _LaneView:
    """What was seen of one partition: when its records were written, when the table had them."""

    written: list[float] = field(default_factory=list)
    looks: deque[tuple[int, float]] = field(default_factory=deque)
    measured: int = 0

    def waits(self) -> Iterator[float]:
        """How long each further record waited until it was in the table, in seconds."""
        while self.looks:
            end, at = self.looks[0]
            for written in self.written[self.measured : end]:
                yield max(0.0, at - written)
            self.measured = max(self.measured, min(end, len(self.written)))
            if self.measured < end:
                return  # the topic's reader is behind the table's
            self.looks.popleft()


@dataclass(frozen=True, slots=True)
class Counts:
    """How many records are on the source topic, settled on the topic, and in the table."""

    written: int
    topic: int
    table: int

    def since(self, base: int) -> Counts:
        """The counts without the first records."""
        return Counts(*(max(0, n - base) for n in (self.written, self.topic, self.table)))


class Watch(Background):
    """Reads the source topic and the table all the while, as a user's programs would.

    So freshness is what a reader sees: from the record's timestamp until a version of the table
    holds it, looked at every 10 ms. The flow's own histogram (`headrace_freshness_ms`) has steps
    that are too wide for a demo.

    Args:
        kafka: The broker.
        topic: The source topic.
        partitions: How many it has.
        tables: Where the table lies.

    Attributes:
        waits: How long each record waited, in the order in which the table took them, in seconds.
    """

    def __init__(self, kafka: KafkaConfig, topic: str, partitions: int, tables: str) -> None:
        super().__init__("demo-watch")
        self.waits: list[float] = []
        self._kafka = kafka
        self._topic = topic
        self._store = TableStore(tables, TABLE, TableSchema(1), "", "")
        self._lanes = [_LaneView() for _ in range(partitions)]
        self._asking = kafka.observer()

    def counts(self) -> Counts:
        """How far everything is."""
        committed = [
            self._kafka.committed(self._asking, self._topic, partition) or 0
            for partition in range(len(self._lanes))
        ]
        table = sum(lane.measured for lane in self._lanes)
        # Last, and at least what was settled: so nothing is ever settled before it is written.
        written = sum(len(lane.written) for lane in self._lanes)
        return Counts(max(written, table, sum(committed)), sum(committed), table)

    def stop(self) -> None:
        """Stop it, and close what it reads by."""
        super().stop()
        self._asking.close()

    def _run(self) -> None:
        consumer = self._kafka.consumer()
        consumer.assign([TopicPartition(self._topic, p, 0) for p in range(len(self._lanes))])
        dataset: lance.LanceDataset | None = None
        while not self._stopping.is_set():
            for message in consumer.consume(1000, timeout=LOOK_S):
                if message.error() is None:
                    written_ms: int = message.timestamp()[1]
                    self._lanes[message.partition() or 0].written.append(written_ms / 1000)
            # The table is not made yet, or a version is just being tidied away: look again.
            with contextlib.suppress(HeadraceError, *LANCE_ERRORS):
                if dataset is None or dataset.latest_version != dataset.version:
                    dataset = self._look()
            for lane in self._lanes:
                self.waits.extend(lane.waits())
        consumer.close()

    def _look(self) -> lance.LanceDataset:
        dataset = self._store.open()
        progress, now = self._store.fence(dataset).progress, time.time()
        for partition, lane in enumerate(self._lanes):
            lane.looks.append((progress.get(Lane(self._topic, partition).key, 0), now))
        return dataset
