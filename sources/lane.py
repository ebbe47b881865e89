"""Reads one source partition from an offset on, in batches that join without a seam."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, cast

import structlog
from confluent_kafka import KafkaError, Message, TopicPartition

from operators.records import Headers, Lane, RecordBatch
from recovery.progress import Watermarks
from sources.budget import LANE_AHEAD_BYTES
from sources.errors import SourceError

if TYPE_CHECKING:
    from confluent_kafka import Consumer

    from clients.kafka import KafkaConfig

__all__ = ["BATCH_BYTES", "FETCH_BYTES", "FETCH_RECORDS", "LaneReader"]

log = structlog.get_logger(__name__)

FETCH_RECORDS: Final = 1024
"""The most records to take over from the client at a time."""

BATCH_BYTES: Final = 64 * 1024
"""The most bytes in a batch of several records: what a core embeds in a few seconds,
so that signals, windows and epochs never wait longer for a worker."""

FETCH_BYTES: Final = 1 << 20
"""The most bytes of one answer of the broker, unless its first batch alone has more."""


def _settings(ahead: int) -> dict[str, int | bool]:
    """A client's: it asks for more only while it holds less than `ahead` bytes.

    The backlog stays in the broker. What comes at once is topped up at once when it is used.
    """
    return {
        "enable.partition.eof": True,
        "queued.max.messages.kbytes": ahead // 1024,
        "queued.min.messages": 2048,
        "fetch.queue.backoff.ms": 10,
        # Of a partition in an answer; a client has only one partition.
        "fetch.message.max.bytes": min(FETCH_BYTES, ahead),
    }


class LaneReader:
    """One lane's consumer; it commits nothing and joins no group.

    Records of aborted transactions, control records and compacted offsets are passed over; the
    batches' ranges of offsets cover them.

    Args:
        config: The broker.
        lane: What to read.
        ahead: How many bytes to read ahead.
    """

    def __init__(self, config: KafkaConfig, lane: Lane, ahead: int = LANE_AHEAD_BYTES) -> None:
        self.lane = lane
        self._config = config
        self._away = False
        self._consumer: Consumer = config.consumer(**_settings(ahead), error_cb=self._on_error)
        self._events: deque[tuple[Message, int]] = deque()
        self._held = 0
        self._next = 0

    @property
    def consumer(self) -> Consumer:
        """The lane's consumer, to ask the group's offsets and the topic's partitions."""
        return self._consumer

    @property
    def position(self) -> int:
        """The next offset that `read` gives or passes over."""
        return self._next

    def watermarks(self) -> Watermarks:
        """What the partition holds now.

        Raises:
            BrokerError: The broker can't be reached.
        """
        where = TopicPartition(self.lane.topic, self.lane.partition)
        low, high = self._config.patiently(
            f"reading the ends of {self.lane}",
            lambda: self._consumer.get_watermark_offsets(where, timeout=5.0),
        )
        return Watermarks(low, high)

    def start(self, offset: int) -> None:
        """Read from an offset on."""
        self._next = offset
        self._consumer.assign([TopicPartition(self.lane.topic, self.lane.partition, offset)])

    def lag(self) -> int:
        """Offsets behind the end, as of the last fetch; 0 before the first."""
        where = TopicPartition(self.lane.topic, self.lane.partition)
        _, high = self._consumer.get_watermark_offsets(where, cached=True)
        return max(0, high - self._next)

    def read(self, room: int) -> RecordBatch | None:
        """The next records, without waiting for any.

        Args:
            room: The most records to read.

        Returns:
            A batch; one without records where only a gap was passed over; None when there is
            nothing.

        Raises:
            SourceError: The lane can't be read on from here.
        """
        # By bytes too: a batch takes one large record, where the client gives hundreds.
        if len(self._events) < room and self._held < BATCH_BYTES:
            self._fetch()
        return self._batch(room)

    def take_away(self) -> bool:
        """Whether the broker was reported away since the last call."""
        away, self._away = self._away, False
        return away

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def _on_error(self, error: KafkaError) -> None:
        self._away = True
        log.debug("consumer", lane=str(self.lane), error=error.str())

    def _fetch(self) -> None:
        for message in self._consumer.consume(FETCH_RECORDS, timeout=0):
            size = _size(message) if message.error() is None else 0
            self._events.append((message, size))
            self._held += size

    def _batch(self, room: int) -> RecordBatch | None:
        taken: list[Message] = []
        total = 0
        end = self._next
        events = self._events
        while events and len(taken) < room:
            message, size = events[0]
            error = message.error()
            if error is not None:
                end = max(end, self._passed(message, error))
            else:
                if taken and total + size > BATCH_BYTES:
                    break
                total += size
                taken.append(message)
            events.popleft()
        self._held -= total
        if taken:
            end = max(end, _offset(taken[-1]) + 1)
        if end == self._next:
            return None
        start, self._next = self._next, end
        return _columns(self.lane, start, end, taken, total, drained=not events)

    def _passed(self, message: Message, error: KafkaError) -> int:
        """The next offset that an event which is no record stands for."""
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
            return _offset(message)
        if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
            raise SourceError(
                f"topic {self.lane} no longer has offset {self._next} ({error.str()}); "
                "retention has deleted it: see source.missing"
            )
        if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION):  # noqa: SLF001
            raise SourceError(f"topic {self.lane} is gone ({error.str()})")
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise SourceError(f"topic {self.lane}: no right to read it")
        self._away = True
        return -1


def _offset(message: Message) -> int:
    offset = message.offset()
    assert offset is not None
    return offset


def _size(message: Message) -> int:
    """The bytes of a record's key, value and headers."""
    key = message.key()
    headers = sum(len(name) + len(value or b"") for name, value in _headers(message))
    return len(message) + (len(key) if key else 0) + headers


def _columns(
    lane: Lane, start: int, end: int, messages: list[Message], size: int, *, drained: bool
) -> RecordBatch:
    return RecordBatch(
        lane,
        start,
        end,
        offsets=[_offset(m) for m in messages],
        timestamps=[max(0, m.timestamp()[1]) for m in messages],
        keys=[m.key() for m in messages],
        values=[m.value() for m in messages],
        headers=[_headers(m) for m in messages],
        drained=drained,
        size=size,
    )


def _headers(message: Message) -> Headers:
    headers = message.headers()
    return tuple(cast("list[tuple[str, bytes | None]]", headers)) if headers else ()
