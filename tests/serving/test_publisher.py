"""Records to the broker: bounded, acknowledged, and refused when they can't be."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from harness.broker import Broker
from serving.problems import ProblemError
from serving.publisher import Limits, Placed, Publisher, producer_of
from serving.records import Record
from telemetry.http import HttpMetrics
from tests.brokers import config_of, read_all, topic_on

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

LIMITS = Limits(records=3, size=1000, record_bytes=400, delivery_s=1.0)
RECORD = Record("t", b"key", b"value")


class FakeMessage:
    """What a report is about."""

    def __init__(self, topic: str, offset: int) -> None:
        self._topic = topic
        self._offset = offset

    def topic(self) -> str:
        """Its topic."""
        return self._topic

    def partition(self) -> int:
        """Its partition."""
        return 0

    def offset(self) -> int:
        """Its offset."""
        return self._offset


class FakeProducer:
    """Holds records until it is told what becomes of them."""

    def __init__(self) -> None:
        self.held: list[tuple[str, Any]] = []
        self.told: list[Callable[[], None]] = []
        self.count = 0
        self.refuses: Exception | None = None
        self.purged = False

    def produce(self, topic: str, *_: object, on_delivery: Any, **__: object) -> None:
        """Hold a record."""
        if self.refuses is not None:
            raise self.refuses
        self.held.append((topic, on_delivery))

    def answer(self, error: KafkaError | None = None) -> None:
        """Report the oldest record at the next poll."""
        topic, report = self.held.pop(0)
        message = FakeMessage(topic, self.count)
        self.count += 1
        self.told.append(lambda: report(error, message))

    def poll(self, timeout: float) -> int:
        """Tell reports."""
        if not self.told:
            time.sleep(min(timeout, 0.005))
        told, self.told = self.told, []
        for tell in told:
            tell()
        return len(told)

    def purge(self) -> None:
        """Report all that is held as not sent."""
        self.purged = True
        while self.held:
            self.answer(KafkaError(KafkaError._PURGE_QUEUE))

    def flush(self, _: float) -> int:
        """Tell reports."""
        return self.poll(0)


def run(
    work: Callable[[Publisher, list[FakeProducer]], Awaitable[None]], limits: Limits = LIMITS
) -> None:
    """Work with a publisher whose producers are fakes."""
    made: list[FakeProducer] = []

    def make() -> FakeProducer:
        made.append(FakeProducer())
        return made[-1]

    async def living() -> None:
        publisher = Publisher(make, limits, HttpMetrics())
        publisher.start()
        try:
            await work(publisher, made)
        finally:
            await publisher.close()

    asyncio.run(living())


async def refused(call: Awaitable[object]) -> tuple[int, str]:
    """The status and code by which a call is refused."""
    with pytest.raises(ProblemError) as caught:
        await call
    has_retry = "Retry-After" in (caught.value.headers or {})
    assert has_retry == (caught.value.status_code == 503)
    return caught.value.status_code, caught.value.problem.code


def test_acknowledged() -> None:
    """A write ends when the broker has it, with its place, and not before."""

    async def work(publisher: Publisher, made: list[FakeProducer]) -> None:
        writing = asyncio.create_task(publisher.send(RECORD))
        await asyncio.sleep(0.1)
        assert not writing.done()
        made[0].answer()
        assert await writing == Placed("t", 0, 0)

    run(work)


def test_the_queue_and_what_the_client_says_are_counted() -> None:
    """Records and bytes that wait are there while they wait; an error has librdkafka's name."""

    async def work(publisher: Publisher, made: list[FakeProducer]) -> None:
        def value(name: str, **labels: str) -> float | None:
            return publisher._metrics.registry.get_sample_value(f"headrace_http_{name}", labels)

        writing = [asyncio.create_task(publisher.send(RECORD)) for _ in range(2)]
        await asyncio.sleep(0.1)
        assert (value("queue_records"), value("queue_bytes")) == (2, 2 * RECORD.size)
        made[0].answer()
        made[0].answer(KafkaError(KafkaError._MSG_TIMED_OUT))
        await asyncio.gather(*writing, return_exceptions=True)
        assert (value("queue_records"), value("queue_bytes")) == (0, 0)
        assert value("broker_errors_total", code="_MSG_TIMED_OUT") == 1
        publisher._metrics.broker_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
        assert value("broker_errors_total", code="_ALL_BROKERS_DOWN") == 1

    run(work)


def test_queue_of_records() -> None:
    """A record too many is refused at once; there is room again when one has been answered."""

    async def work(publisher: Publisher, made: list[FakeProducer]) -> None:
        writing = [asyncio.create_task(publisher.send(RECORD)) for _ in range(3)]
        await asyncio.sleep(0)
        began = time.monotonic()
        assert await refused(publisher.send(RECORD)) == (503, "queue_full")
        assert time.monotonic() - began < 0.1
        made[0].answer()
        await writing[0]
        last = asyncio.create_task(publisher.send(RECORD))
        await asyncio.sleep(0)
        for _ in range(3):
            made[0].answer()
        assert (await last).offset == 3

    run(work)


def test_queue_of_bytes() -> None:
    """The queue is bounded in bytes, too, and a single record of any allowed size fits into it."""

    async def work(publisher: Publisher, made: list[FakeProducer]) -> None:
        large = Record("t", b"key", b"x" * 390)
        writing = [asyncio.create_task(publisher.send(large)) for _ in range(2)]
        await asyncio.sleep(0)
        assert await refused(publisher.send(large)) == (503, "queue_full")
        for _ in writing:
            made[0].answer()
        await asyncio.gather(*writing)

    run(work)


def test_too_large() -> None:
    """A record that the flow would not take, or the broker does not, is too large."""

    async def work(publisher: Publisher, made: list[FakeProducer]) -> None:
        huge = Record("t", b"key", b"x" * 390, (("header", b"x" * 10),))
        assert await refused(publisher.send(huge)) == (413, "too_large")
        made[0].refuses = KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        assert await refused(publisher.send(RECORD)) == (413, "too_large")
        made[0].refuses = None
        writing = asyncio.create_task(publisher.send(RECORD))
        await asyncio.sleep(0)
        made[0].answer(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        assert await refused(writing) == (413, "too_large")

    run(work)


def test_no_answer() -> None:
    """A write that the broker leaves without an answer ends in time; its place stays taken."""

    async def work(publisher: Publisher, made: list[FakeProducer]) -> None:
        began = time.monotonic()
        writing = [asyncio.create_task(publisher.send(RECORD)) for _ in range(3)]
        for one in writing:
            assert await refused(one) == (503, "broker_away")
        assert 0.9 < time.monotonic() - began < 3
        assert await refused(publisher.send(RECORD)) == (503, "queue_full")
        made[0].answer()
        await asyncio.sleep(0.1)
        last = asyncio.create_task(publisher.send(RECORD))
        await asyncio.sleep(0)
        for _ in range(3):
            made[0].answer()
        assert (await last).topic == "t"

    run(work)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (KafkaError._MSG_TIMED_OUT, "broker_away"),
        (KafkaError.NOT_ENOUGH_REPLICAS, "broker_away"),
        (KafkaError._UNKNOWN_TOPIC, "no_topic"),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, "no_topic"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "no_right"),
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, "no_right"),
    ],
)
def test_refused_by_the_broker(code: int, told: str) -> None:
    """What the broker refuses is not accepted."""

    async def work(publisher: Publisher, made: list[FakeProducer]) -> None:
        writing = asyncio.create_task(publisher.send(RECORD))
        await asyncio.sleep(0)
        made[0].answer(KafkaError(code))
        assert await refused(writing) == (503, told)

    run(work)


def test_fatal() -> None:
    """After a fatal error another producer goes on; what the first one held is not accepted."""

    async def work(publisher: Publisher, made: list[FakeProducer]) -> None:
        writing = [asyncio.create_task(publisher.send(RECORD)) for _ in range(3)]
        await asyncio.sleep(0)
        made[0].answer(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "gap", fatal=True))
        for one in writing:
            assert (await refused(one))[0] == 503
        assert made[0].purged
        assert len(made) == 2
        last = asyncio.create_task(publisher.send(RECORD))
        await asyncio.sleep(0)
        made[1].answer()
        assert (await last).topic == "t"

    run(work)


def test_room() -> None:
    """One who has patience waits for room, though not for ever."""

    async def work(publisher: Publisher, made: list[FakeProducer]) -> None:
        writing = [asyncio.create_task(publisher.send(RECORD)) for _ in range(3)]
        await asyncio.sleep(0)
        assert await refused(publisher.room()) == (503, "queue_full")
        waiting = asyncio.create_task(publisher.room())
        await asyncio.sleep(0)
        made[0].answer()
        await waiting
        for _ in range(2):
            made[0].answer()
        await asyncio.gather(*writing, return_exceptions=True)

    run(work)


def test_gone() -> None:
    """A caller that goes away leaves nothing behind; its record counts until it is answered."""

    async def work(publisher: Publisher, made: list[FakeProducer]) -> None:
        writing = asyncio.create_task(publisher.send(RECORD))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        made[0].answer(KafkaError(KafkaError._MSG_TIMED_OUT))
        await asyncio.sleep(0.1)
        assert publisher._records == publisher._size == 0

    run(work)


@pytest.mark.kafka
def test_broker(broker: Broker) -> None:
    """Records stand where the answers say, each key's in the order of the writes."""
    topic = topic_on(broker, 3)
    kafka = config_of(broker)
    limits = Limits(10_000, 1 << 20, 10_000, 10)

    async def work() -> list[Placed]:
        publisher = Publisher(lambda: producer_of(kafka, limits), limits, HttpMetrics())
        publisher.start()
        records = [Record(topic, b"%d" % (i % 7), b"%d" % i, (("h", b"x"),)) for i in range(500)]
        placed = await asyncio.gather(*map(publisher.send, records))
        await publisher.close()
        return placed

    placed = asyncio.run(work())
    held = {p: read_all(broker, topic, p) for p in range(3)}
    assert sum(map(len, held.values())) == 500
    for number, place in enumerate(placed):
        message = held[place.partition][place.offset]
        assert (message.key(), message.value()) == (b"%d" % (number % 7), b"%d" % number)
        assert message.headers() == [("h", b"x")]
    for partition in held.values():
        for key in {message.key() for message in partition}:
            numbers = [int(m.value() or b"") for m in partition if m.key() == key]
            assert numbers == sorted(numbers)


@pytest.mark.kafka
def test_broker_away(tmp_path: Path) -> None:
    """While the broker is away writes end in time; once it is back they are taken again."""
    limits = Limits(100, 1 << 20, 10_000, 3)
    with Broker(folder=tmp_path / "kafka") as broker:
        topic = topic_on(broker)
        kafka = config_of(broker)

        async def work() -> None:
            publisher = Publisher(lambda: producer_of(kafka, limits), limits, HttpMetrics())
            publisher.start()
            first = Record(topic, b"k", b"first")
            assert (await publisher.send(first)).offset == 0
            await asyncio.to_thread(broker.kill)
            began = time.monotonic()
            away = [publisher.send(Record(topic, b"k", b"away %d" % i)) for i in range(3)]
            told = await asyncio.gather(*map(refused, away))
            assert told == [(503, "broker_away")] * 3
            assert time.monotonic() - began < limits.delivery_s + 1
            await asyncio.to_thread(broker.start)
            assert (await publisher.send(Record(topic, b"k", b"back"))).topic == topic
            await publisher.close()

        asyncio.run(work())
        values = [message.value() for message in read_all(broker, topic)]
        assert values[0] == b"first"
        assert values[-1] == b"back"
