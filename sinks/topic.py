"""The embeddings topic: outcomes, dead letters and progress in one transaction."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from clients.kafka import reason
from clients.rights import is_denied
from operators.records import Lane, OutcomeBatch, count
from operators.window import Window
from recovery.fencing import fenced_producer
from sinks.committer import Committer
from sinks.errors import SECOND_COPY, SinkError
from sinks.seam import check_seam
from telemetry.limited import LimitedLog
from telemetry.refusals import tell_dead_letters
from telemetry.spans import NO_SPANS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from confluent_kafka import Consumer, Producer

    from clients.kafka import KafkaConfig, Option
    from recovery.progress import Board
    from recovery.watchdog import Watchdog
    from sinks.messages import Messages, OutputRecord
    from telemetry.metrics import Metrics
    from telemetry.spans import Spans

__all__ = ["LaneWriter", "TopicSink", "Writing"]

log = structlog.get_logger(__name__)
limited = LimitedLog(log)

TRANSACTION_ROWS: Final = 2000
"""The most records in one transaction, where a backlog of windows waits for one."""

TRANSACTIONS_PER_S: Final = 200
"""How many transactions a second a process asks of the broker, all its lanes together."""

QUEUE_KB: Final = 16 * 1024
"""What librdkafka holds of one lane's transaction until the broker has it, in KiB."""

STEP_TIMEOUT_S: Final = 10.0

KEEP_ALIVE_S: Final = 3600.0
"""How often an idle lane commits its offset again: the broker forgets offsets of a group that no
member is subscribed to (`offsets.retention.minutes`, seven days by default)."""

FENCED: Final = frozenset(
    {
        KafkaError._FENCED,  # noqa: SLF001 - librdkafka's own codes are spelled so
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
    }
)


@dataclass(frozen=True)
class Writing:
    """How lanes are written, and with what.

    Attributes:
        kafka: The broker.
        encoder: Makes the records.
        compression: librdkafka's name of it.
        max_message_bytes: The largest record that may be produced.
        board: Where progress is posted.
        watchdog: Watches each transaction.
        metrics: Where to count.
        spans: Told of each transaction.
        rights: The operation that is needed on each topic, outputs and sources.
        parts: Those that this process has built, other pipelines' too.
    """

    kafka: KafkaConfig
    encoder: Messages
    compression: str
    max_message_bytes: int
    board: Board
    watchdog: Watchdog
    metrics: Metrics
    spans: Spans = NO_SPANS
    rights: Mapping[str, str] = field(default_factory=dict)
    parts: list[str] = field(default_factory=list)


@dataclass
class TopicSink(FixedPartitionedSink[Window, None]):
    """Writes every lane's outcomes in transactions.

    Parallelism: a part, a thread and a transactional id for each lane. Parts are named as the
    source's are, so Bytewax runs both on the same worker.

    Guarantee: exactly once. A record's outcome and the offset behind it are in one transaction,
    and only the producer that initialised the lane's id last can commit one.

    A replay is dropped up to the offset that was committed when the part was built.
    """

    lanes: tuple[Lane, ...]
    writing: Writing

    def list_parts(self) -> list[str]:
        """The keys of the lanes."""
        return sorted(lane.key for lane in self.lanes)

    def part_fn(self, item_key: str) -> int:
        """The part of a lane's key; lanes added while the flow runs go to the first part."""
        parts = self.list_parts()
        return parts.index(item_key) if item_key in parts else 0

    def build_part(
        self,
        step_id: str,  # noqa: ARG002 - Bytewax's interface
        for_part: str,
        resume_state: None,  # noqa: ARG002 - the committed offset is the state
    ) -> TopicPartitionSink:
        """A part; it opens a lane when the first window of that comes."""
        self.writing.parts.append(for_part)
        return TopicPartitionSink(self.writing, self._pause_s)

    def _pause_s(self) -> float:
        """How long a lane gathers, so that all of this process's parts keep to its transactions."""
        return len(self.writing.parts) / TRANSACTIONS_PER_S


@dataclass
class TopicPartitionSink(StatefulSinkPartition[Window, None]):
    """The lanes of one part: its own, and those added while the flow ran."""

    writing: Writing
    pause_s: Callable[[], float]
    _writers: dict[Lane, LaneWriter] = field(default_factory=dict, init=False)

    def write_batch(self, values: list[Window]) -> None:
        """Queue windows for their lanes' threads; returns at once."""
        for window in values:
            for batch in window:
                self._writer(batch.lane).write(batch)

    def snapshot(self) -> None:
        """Nothing: the committed offset is the state."""

    def close(self) -> None:
        """Commit what is queued."""
        for writer in self._writers.values():
            writer.close()

    def _writer(self, lane: Lane) -> LaneWriter:
        if lane not in self._writers:
            writer = self.writing.watchdog.ending(LaneWriter)
            self._writers[lane] = writer(self.writing, lane, self.pause_s())
        return self._writers[lane]


class LaneWriter:
    """Commits one lane's outcomes, in order and once. Steps 3 and 6 of `recovery.progress`.

    Args:
        writing: How lanes are written.
        lane: The lane.
        pause_s: How long to gather between two transactions, in seconds.
    """

    def __init__(self, writing: Writing, lane: Lane, pause_s: float) -> None:
        self._writing = writing
        self._lane = lane
        self._source = lane.topic
        self._producer = self._fence()
        self._consumer: Consumer = writing.kafka.consumer()
        self._group = self._consumer.consumer_group_metadata()
        committed = writing.kafka.committed(self._consumer, lane.topic, lane.partition)
        self._floor = -1 if committed is None else committed
        self._next: int | None = None
        self._done: int | None = committed
        self._kept_alive = time.monotonic()
        writing.board.own("topic", lane.key)
        writing.board.post("topic", lane.key, self._floor)
        self._committer: Committer[OutcomeBatch] = Committer(
            f"transaction of {lane}",
            self._commit,
            len,
            writing.watchdog,
            rows=TRANSACTION_ROWS,
            pause=lambda took: pause_s - took,
            idle=self._keep_alive,
        )

    def write(self, batch: OutcomeBatch) -> None:
        """Queue the part of a batch that is not committed yet.

        Raises:
            SinkError: The batch does not join the one before it.
        """
        check_seam(batch, self._next)
        self._next = batch.end
        fresh = batch.since(self._floor)
        if fresh is not None:
            self._committer.put(fresh)

    def close(self) -> None:
        """Commit what is queued and leave the broker; never raises."""
        self._committer.close()
        self._consumer.close()

    def _fence(self) -> Producer:
        meter = self._writing.metrics.clients.other(f"writer of {self._lane}")
        options: dict[str, Option] = {
            "compression.type": self._writing.compression,
            "message.max.bytes": self._writing.max_message_bytes,
            # Room for the largest record beside others; librdkafka's own limit is 1 GiB a lane.
            "queue.buffering.max.kbytes": max(QUEUE_KB, self._writing.max_message_bytes // 512),
            **meter.options,
        }
        return fenced_producer(self._writing.kafka, self._lane, **options)

    def _commit(self, batches: Sequence[OutcomeBatch]) -> None:
        started = time.monotonic()
        span = self._writing.spans.begin("topic transaction", batches)
        self._transact(span.passed_on(batches), batches[-1].end)
        span.end()
        self._done = batches[-1].end
        self._writing.board.post("topic", self._lane.key, batches[-1].end)
        self._writing.metrics.committed("topic", batches, time.monotonic() - started)
        log.debug("committed", stage="topic", lane=str(self._lane), records=count(batches))
        tell_dead_letters(limited, batches)

    def _transact(self, batches: Sequence[OutcomeBatch], next_offset: int) -> None:
        """Commit outcomes and progress together.

        As librdkafka says to: abort and begin again where it asks for that, repeat a step where
        it can be repeated, give up otherwise.
        """
        while True:
            try:
                self._producer.begin_transaction()
                # Each record is made as it is produced: only librdkafka holds all of them.
                for batch in batches:
                    self._produce(self._writing.encoder.records(batch))
                self._step(lambda: self._send_offset(next_offset))
                self._step(lambda: self._producer.commit_transaction(STEP_TIMEOUT_S))
            except KafkaException as error:
                self._recover(error)
            else:
                self._kept_alive = time.monotonic()
                return

    def _produce(self, records: Iterable[OutputRecord]) -> None:
        produce = self._producer.produce
        for topic, key, value, headers, partition, timestamp in records:
            while True:
                try:
                    produce(topic, value, key, partition, timestamp=timestamp, headers=headers)
                except BufferError:
                    self._producer.poll(0.1)
                else:
                    break

    def _send_offset(self, next_offset: int) -> None:
        # The model's fingerprint goes with the offset, so that another model is noticed.
        note = self._writing.encoder.fingerprint
        position = TopicPartition(self._source, self._lane.partition, next_offset, note)
        self._producer.send_offsets_to_transaction([position], self._group, STEP_TIMEOUT_S)

    def _step(self, step: Callable[[], None]) -> None:
        """Make a call of a transaction, again while librdkafka says that it can be repeated.

        Without a limit of its own: the watchdog ends a process whose commit doesn't end.
        """
        while True:
            try:
                step()
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise
                log.debug("again", stage="topic", lane=str(self._lane), error=reason(error))
                time.sleep(0.1)
            else:
                return

    def _recover(self, error: KafkaException) -> None:
        """Abort, so that the transaction can begin again; or raise what a person must mend."""
        kafka = error.args[0]
        if kafka.code() in FENCED:
            raise SinkError(
                f"kafka.application_id: {self._writing.kafka.application_id}: {SECOND_COPY} has "
                f"taken over {self._lane}; this one ends"
            ) from error
        self._see_rights(error)
        if kafka.fatal() or not kafka.txn_requires_abort():
            raise SinkError(f"embeddings.topic: {self._lane}: {reason(error)}") from error
        limited.warning(
            "transaction aborted",
            per=str(self._lane),
            stage="topic",
            lane=str(self._lane),
            error=reason(error),
        )
        try:
            self._step(lambda: self._producer.abort_transaction(STEP_TIMEOUT_S))
        except KafkaException as fatal:
            self._recover(fatal)
        time.sleep(0.1)

    def _see_rights(self, error: KafkaException) -> None:
        """Raise what is missing where a transaction failed for want of a right.

        To begin again would be in vain until a person grants it.
        """
        if not is_denied(error.args[0]):
            return
        kafka = self._writing.kafka
        denied = kafka.denied(error)
        if not denied:
            kafka.demand(self._writing.rights)  # the broker's refusal doesn't name the topic
        told = denied or reason(error)
        raise SinkError(f"kafka.client: transaction of {self._lane}: {told}") from error

    def _keep_alive(self) -> None:
        # Nobody else polls while there is nothing to commit.
        self._producer.poll(0)
        if self._done is not None and time.monotonic() - self._kept_alive > KEEP_ALIVE_S:
            with self._writing.watchdog.busy(f"transaction of {self._lane}"):
                self._transact([], self._done)
