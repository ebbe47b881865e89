"""Reads one source partition from an offset on, in batches that join without a seam."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import structlog
from confluent_kafka import KafkaError, Message, TopicPartition

from clients.rights import missing
from operators.records import Headers, Lane, RecordBatch
from recovery.progress import Watermarks
from sources.budget import LANE_AHEAD_BYTES
from sources.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from confluent_kafka import Consumer

    from clients.kafka import KafkaConfig
    from telemetry.clients import Meter

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
        meter: Takes what the client tells of itself.
    """

    def __init__(
        self,
        config: KafkaConfig,
        lane: Lane,
        ahead: int = LANE_AHEAD_BYTES,
        meter: Meter | None = None,
    ) -> None:
        self.lane = lane
        self._config = config
        self._away = False
        self._meter = meter
        options = meter.options if meter is not None else {}
        self._consumer: Consumer = config.consumer(
            **_settings(ahead), **options, error_cb=self._on_error
        )
        self._events: deque[_Records | _Event] = deque()
        self._count = 0
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
            f"Read on topic {self.lane.topic}",
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

    def readable(self) -> int:
        """The same without what an open transaction of a producer still holds back."""
        told = self._meter.fresh if self._meter is not None else None
        ahead = told.ahead.get((self.lane.topic, self.lane.partition)) if told else None
        if ahead is None or ahead.stable < 0:
            return self.lag()
        return max(0, min(self.lag(), ahead.stable - self._next))

    def waiting(self) -> bool:
        """Whether there is anything to read now: records, or a gap to be passed over."""
        if not self._events:
            self._fetch()
        return bool(self._events)

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
        if self._count < room and self._held < BATCH_BYTES:
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
        for event in _events(self._consumer.consume(FETCH_RECORDS, timeout=0)):
            self._events.append(event)
            if isinstance(event, _Records):
                self._count += len(event.offsets)
                self._held += event.ends[-1]

    def _batch(self, room: int) -> RecordBatch | None:
        taken = _Columns()
        end = self._next
        events = self._events
        while events:
            event = events[0]
            if not isinstance(event, _Records):
                end = max(end, self._passed(*event))
            elif taken.offsets:
                break
            else:
                taken = event.take(room)
                end = max(end, taken.offsets[-1] + 1)
                if event.taken < len(event.offsets):
                    break
            events.popleft()
        self._count -= len(taken.offsets)
        self._held -= taken.size
        if end == self._next:
            return None
        start, self._next = self._next, end
        return RecordBatch(self.lane, start, end, *taken[:-1], not events, taken.size)

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
            raise SourceError(f"reading {self.lane}: {missing(f'Read on topic {self.lane.topic}')}")
        self._away = True
        return -1


class _Columns(NamedTuple):
    """Some records, as columns, and their bytes."""

    offsets: Sequence[int] = ()
    timestamps: Sequence[int] = ()
    keys: Sequence[bytes | None] = ()
    values: Sequence[bytes | None] = ()
    headers: Sequence[Headers] = ()
    size: int = 0


_Event = tuple[Message, KafkaError]
"""What the client gives that is no record."""


class _Records:
    """Records that the client gave at once, as columns, and how many of them have been taken.

    Args:
        messages: At least one.
    """

    def __init__(self, messages: Sequence[Message]) -> None:
        self.taken = 0
        self.offsets = cast("list[int]", list(map(Message.offset, messages)))
        self._timestamps = [max(0, stamp) for _, stamp in map(Message.timestamp, messages)]
        self._keys = cast("list[bytes | None]", list(map(Message.key, messages)))
        self._values = cast("list[bytes | None]", list(map(Message.value, messages)))
        self._headers = list(map(_headers, map(Message.headers, messages)))
        # The bytes of each record and all before it.
        self.ends = list(accumulate(map(_size, self._keys, self._values, self._headers)))

    def take(self, room: int) -> _Columns:
        """The next records: so many, unless they have too many bytes; at least one."""
        first, ends = self.taken, self.ends
        before = ends[first - 1] if first else 0
        last = min(first + room, len(ends))
        last = max(first + 1, bisect_right(ends, before + BATCH_BYTES, first, last))
        self.taken = last
        return _Columns(
            self.offsets[first:last],
            self._timestamps[first:last],
            self._keys[first:last],
            self._values[first:last],
            self._headers[first:last],
            ends[last - 1] - before,
        )


def _events(messages: Sequence[Message]) -> Iterator[_Records | _Event]:
    """What the client gave, in its order, with the records between other events together."""
    first = 0
    for index, error in enumerate(map(Message.error, messages)):
        if error is not None:
            if first < index:
                yield _Records(messages[first:index])
            yield messages[index], error
            first = index + 1
    if first < len(messages):
        yield _Records(messages[first:])


def _offset(message: Message) -> int:
    offset = message.offset()
    assert offset is not None
    return offset


def _size(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """The bytes of a record's key, value and headers."""
    size = (len(key) if key else 0) + (len(value) if value else 0)
    return size + sum(len(name) + len(held or b"") for name, held in headers) if headers else size


def _headers(headers: object) -> Headers:
    return tuple(cast("list[tuple[str, bytes | None]]", headers)) if headers else ()
