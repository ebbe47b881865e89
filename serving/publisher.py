"""Records to the broker: a bounded queue, and an answer for each once it is acknowledged.

A write is accepted when all in-sync replicas have it, and not before. So a server that is killed
loses nothing that it has accepted; what it had not answered may be there or not, and the same
request again does no harm, since a document's id is its key.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

import structlog
from confluent_kafka import KafkaError, KafkaException

from clients.kafka import reason
from clients.rights import DENIED, missing
from serving.problems import RETRY_S, ProblemError
from telemetry.limited import LimitedLog
from telemetry.refusals import ids_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Message, Producer

    from clients.kafka import KafkaConfig, Option
    from operators.records import Headers
    from serving.records import Record
    from telemetry.http import HttpMetrics

__all__ = ["Limits", "Placed", "Publisher", "producer_of"]

log = structlog.get_logger(__name__)
limited = LimitedLog(log)

POLL_S: Final = 0.1
LINGER_MS: Final = 2
"""For how long a record waits for company: requests that arrive together share a call."""

HEADER_BYTES: Final = 65_536
MOST_KBYTES: Final = 2_097_151
"""The most that librdkafka's own queue can be set to."""

DELIVERY_SHARE: Final = 0.8
"""The share of the delivery time-out after which librdkafka gives up, so that it says why."""

_TOO_LARGE: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE})
_GIVEN_UP: Final = frozenset(
    {
        KafkaError._FATAL,  # noqa: SLF001 - librdkafka's own codes are spelled so
        KafkaError._PURGE_QUEUE,  # noqa: SLF001
        KafkaError._PURGE_INFLIGHT,  # noqa: SLF001
    }
)
_NO_TOPIC: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 - librdkafka's own codes are spelled so
    }
)


@dataclass(frozen=True)
class Limits:
    """What may wait, and for how long.

    Attributes:
        records: Records that may wait for the broker.
        size: Bytes that they may have together.
        record_bytes: Bytes of the largest record.
        delivery_s: Seconds that a write waits.
    """

    records: int
    size: int
    record_bytes: int
    delivery_s: float


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the broker has put a record."""

    topic: str
    partition: int
    offset: int


class Sending(Protocol):
    """What of `confluent_kafka.Producer` is used."""

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes,
        *,
        headers: list[tuple[str, str | bytes | None]],
        on_delivery: Callable[[KafkaError | None, Message], None],
    ) -> None: ...

    def poll(self, timeout: float, /) -> int: ...

    def flush(self, timeout: float, /) -> int: ...

    def purge(self) -> None: ...


def producer_of(
    kafka: KafkaConfig, limits: Limits, on_error: Callable[[KafkaError], None] = lambda _: None
) -> Producer:
    """An idempotent producer whose own queue never is the one that is full.

    Args:
        kafka: The broker.
        limits: What may wait.
        on_error: Told what goes wrong between client and broker, while it is polled.
    """
    kilobytes = 2 * (limits.size + limits.record_bytes) // 1024 + 1024
    options: dict[str, Option] = {
        "error_cb": on_error,
        "acks": "all",
        "linger.ms": LINGER_MS,
        "message.timeout.ms": int(limits.delivery_s * DELIVERY_SHARE * 1000),
        "message.max.bytes": max(1_000_000, limits.record_bytes + HEADER_BYTES),
        "queue.buffering.max.messages": 2 * limits.records + 1000,
        "queue.buffering.max.kbytes": min(MOST_KBYTES, kilobytes),
        "retry.backoff.ms": 20,
    }
    return kafka.producer(**options)


class Publisher:
    """Sends records for one worker; used from its event loop alone.

    Args:
        make: Makes a producer: at the start, and again when librdkafka gives one up.
        limits: What may wait.
        metrics: Where it is counted.
    """

    def __init__(self, make: Callable[[], Sending], limits: Limits, metrics: HttpMetrics) -> None:
        self.limits = limits
        self._make = make
        self._producer = make()
        self._metrics = metrics
        self._records = 0
        self._size = 0
        self._room = asyncio.Event()
        self._room.set()
        self._given_up: tuple[Sending | None, KafkaError | None] = (None, None)
        self._reports: deque[tuple[_Waiting, KafkaError | None, Placed]] = deque()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to hear what the broker says."""
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(
            target=self._listen, args=(loop,), name="kafka", daemon=True
        )
        self._thread.start()

    async def close(self) -> None:
        """Wait for what has been sent, no longer than the delivery time-out; then end."""
        await asyncio.to_thread(self._producer.flush, self.limits.delivery_s)
        self._ended.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        self._settle()

    async def send(self, record: Record) -> Placed:
        """Send a record at once, and wait until the broker has it.

        Raises:
            ProblemError: The queue is full (503), the record too large (413), or the broker has
                not acknowledged it in time (503).
        """
        return await self.outcome(self.begin(record))

    async def room(self) -> None:
        """Wait until a record may be sent.

        Raises:
            ProblemError: There was no room for as long as a delivery may take.
        """
        try:
            async with asyncio.timeout(self.limits.delivery_s):
                while not self._fits(0):
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            raise self._refusal(503, "queue_full", "the queue is full") from None

    def begin(self, record: Record) -> asyncio.Future[Placed]:
        """Hand a record to the client, in the order of calls for each key.

        Raises:
            ProblemError: The queue is full (503), or the record too large (413).
        """
        size = record.size
        if size > self.limits.record_bytes:
            told = f"the record has {size} bytes, more than {self.limits.record_bytes}"
            raise self._refusal(413, "too_large", told)
        if not self._fits(size):
            raise self._refusal(503, "queue_full", "the queue is full; the broker is behind")
        placed = asyncio.get_running_loop().create_future()
        waiting = _Waiting(placed, size, self._producer, record.headers)
        waiting.placed.add_done_callback(_heard)
        self._take(waiting)
        try:
            self._producer.produce(
                record.topic,
                record.value,
                record.key,
                headers=list(record.headers),
                on_delivery=partial(self._delivered, waiting),
            )
        except (BufferError, KafkaException) as error:
            self._release(waiting)
            raise self._failure(error, record.topic, waiting) from error
        return waiting.placed

    async def outcome(self, placed: asyncio.Future[Placed]) -> Placed:
        """Wait until the broker has a record.

        Raises:
            ProblemError: It has refused it, or not acknowledged it in time.
        """
        try:
            async with asyncio.timeout(self.limits.delivery_s):
                return await asyncio.shield(placed)
        except TimeoutError:
            raise self._refusal(
                503, "broker_away", "the broker has not acknowledged the record in time"
            ) from None

    def _fits(self, size: int) -> bool:
        return self._records < self.limits.records and (
            not self._records or self._size + size <= self.limits.size
        )

    def _take(self, waiting: _Waiting) -> None:
        self._records += 1
        self._size += waiting.size
        self._metrics.queued.inc()
        self._metrics.queued_bytes.inc(waiting.size)

    def _release(self, waiting: _Waiting) -> None:
        self._records -= 1
        self._size -= waiting.size
        self._metrics.queued.dec()
        self._metrics.queued_bytes.dec(waiting.size)
        self._room.set()

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear reports in a thread, and wake the loop once for all that came together."""
        while not self._ended.is_set():
            producer = self._producer
            try:
                producer.poll(POLL_S)
            except KafkaException as error:
                # A fatal error is raised here once; what the client holds is reported after that.
                loop.call_soon_threadsafe(self._replace, error.args[0], producer)
            if self._reports:
                loop.call_soon_threadsafe(self._settle)

    def _delivered(self, waiting: _Waiting, error: KafkaError | None, message: Message) -> None:
        """Called in the thread that polls."""
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        placed = Placed(topic or "", -1 if partition is None else partition, offset or 0)
        self._reports.append((waiting, error, placed))

    def _settle(self) -> None:
        while self._reports:
            waiting, error, placed = self._reports.popleft()
            self._release(waiting)
            if error is None:
                self._metrics.accepted.labels(placed.topic).inc()
                if not waiting.placed.done():
                    waiting.placed.set_result(placed)
                continue
            problem = self._failure(KafkaException(error), placed.topic, waiting)
            if not waiting.placed.done():
                waiting.placed.set_exception(problem)

    def _failure(self, error: BaseException, topic: str, waiting: _Waiting) -> ProblemError:
        told = self._cause(error.args[0] if error.args else None, waiting.producer)
        code = told.code() if isinstance(told, KafkaError) else None
        if isinstance(told, KafkaError):
            self._metrics.broker_error(told)
        if isinstance(told, KafkaError) and told.fatal():
            self._replace(told, waiting.producer)
        if code in _TOO_LARGE:
            return self._refusal(413, "too_large", f"{topic}: the broker takes no record so large")
        if code in DENIED:
            lacking = missing(f"Write on topic {topic}")
            limited.warning(
                "record not sent", per=topic, stage="ingest", topic=topic, error=lacking
            )
            return self._refusal(503, "no_right", f"topic {topic}: the server may not write there")
        limited.warning(
            "record not sent",
            per=topic,
            stage="ingest",
            topic=topic,
            error=reason(error),
            **ids_of(waiting.headers),
        )
        if code in _NO_TOPIC:
            way_out = f"topic {topic}: {reason(error)}; make it: headrace topics create"
            return self._refusal(503, "no_topic", way_out)
        return self._refusal(503, "broker_away", f"the broker has not taken it: {reason(error)}")

    def _cause(self, told: object, producer: Sending) -> object:
        """What a client was given up for, where it says of a record no more than that it was."""
        broken, error = self._given_up
        lost = isinstance(told, KafkaError) and told.code() in _GIVEN_UP
        return error if lost and producer is broken else told

    def _replace(self, error: KafkaError, failed: Sending) -> None:
        """Go on with another producer: one with a fatal error sends no more."""
        if failed is not self._producer:
            return
        self._given_up = (failed, error)
        log.error("producer replaced", stage="ingest", error=error.str())
        broken, self._producer = self._producer, self._make()
        # What it still holds is reported as not sent.
        broken.purge()
        with suppress(KafkaException):
            broken.flush(0)
        asyncio.get_running_loop().call_soon(self._settle)

    def _refusal(self, status: int, code: str, detail: str) -> ProblemError:
        self._metrics.refused.labels(code).inc()
        retry = status == HTTPStatus.SERVICE_UNAVAILABLE
        return ProblemError(status, code, detail, {"Retry-After": str(RETRY_S)} if retry else None)


class _Waiting:
    """A record on its way: who waits for it, its bytes in the queue, who sends it, its headers."""

    __slots__ = ("headers", "placed", "producer", "size")

    def __init__(
        self, placed: asyncio.Future[Placed], size: int, producer: Sending, headers: Headers
    ) -> None:
        self.headers = headers
        self.placed = placed
        self.size = size
        self.producer = producer


def _heard(placed: asyncio.Future[Placed]) -> None:
    """Take note of an outcome, for which perhaps nobody waits any more."""
    if not placed.cancelled():
        placed.exception()
