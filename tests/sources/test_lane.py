from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicPartition

from operators.records import Lane, RecordBatch
from recovery.progress import Watermarks
from sources.budget import LANE_AHEAD_BYTES
from sources.errors import SourceError
from sources.lane import BATCH_BYTES, FETCH_BYTES, LaneReader
from telemetry.clients import Meter
from tests.brokers import Record, admin, config_of, send, send_values, topic_on, transact
from tests.samples import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.broker import Broker

pytestmark = pytest.mark.kafka


def drain(reader: LaneReader, end: int, room: int = 10_000) -> list[RecordBatch]:
    """Everything up to an offset."""
    batches: list[RecordBatch] = []
    deadline = time.monotonic() + 20
    while reader.position < end:
        assert time.monotonic() < deadline, f"stuck at {reader.position}, not at {end}"
        batch = reader.read(room)
        if batch is not None:
            batches.append(batch)
    return batches


class Reading:
    """Opens readers and closes them after the test."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._readers: list[LaneReader] = []

    def __call__(self, topic: str, offset: int = 0) -> LaneReader:
        """A reader of a topic's first partition, from an offset on."""
        reader = LaneReader(config_of(self._broker), Lane(topic, 0))
        self._readers.append(reader)
        reader.start(offset)
        return reader

    def close(self) -> None:
        """Close them."""
        for reader in self._readers:
            reader.close()


@pytest.fixture
def reading(broker: Broker) -> Iterator[Reading]:
    """Opens readers."""
    readers = Reading(broker)
    yield readers
    readers.close()


def test_what_an_open_transaction_holds_back_is_not_readable(broker: Broker) -> None:
    """It is lag, of which a flow can work off nothing; what comes after it is, once it ends."""
    topic = topic_on(broker)
    send_values(broker, topic, b"free")
    producer = config_of(broker).transactional_producer("open")
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(topic, b"held", b"t", 0)
    producer.flush(20)
    meter = Meter(0.1)
    reader = LaneReader(config_of(broker), Lane(topic, 0), LANE_AHEAD_BYTES, meter)
    reader.start(0)

    def seen(lag: int, readable: int) -> bool:
        reader.read(10)
        time.sleep(0.05)
        return meter.fresh is not None and (reader.lag(), reader.readable()) == (lag, readable)

    until(lambda: reader.position == 1 or seen(-1, -1))
    until(lambda: seen(1, 0))
    producer.commit_transaction(20)
    until(lambda: seen(0, 0) and reader.position == 3)
    reader.close()


def test_columns_are_what_was_sent(broker: Broker, reading: Reading) -> None:
    """Keys, values and headers come as they are, null and empty ones apart, in offset order."""
    topic = topic_on(broker)
    sent: list[Record] = [
        (b"a", b"1", [("x", b"y"), ("x", None)]),
        (None, b"2", []),
        (b"", b"", []),
        (b"c", None, [("user_id", "ü".encode())]),
    ]
    before = int(time.time() * 1000)
    send(broker, topic, sent)
    batches = drain(reading(topic), 4)
    assert [k for b in batches for k in b.keys] == [key for key, _, _ in sent]
    assert [v for b in batches for v in b.values] == [value for _, value, _ in sent]
    assert [h for b in batches for h in b.headers] == [tuple(headers) for _, _, headers in sent]
    assert [o for b in batches for o in b.offsets] == [0, 1, 2, 3]
    for batch in batches:
        assert all(before <= t <= time.time() * 1000 for t in batch.timestamps)


def test_gaps_are_passed_over(broker: Broker, reading: Reading) -> None:
    """Aborted records and control records leave no seam, the one at the end included."""
    topic = topic_on(broker)
    transact(broker, topic, 2, commit=True)  # 0, 1, control record 2
    transact(broker, topic, 3, commit=False)  # 3 to 5 aborted, control record 6
    transact(broker, topic, 1, commit=True)  # 7, control record 8
    transact(broker, topic, 2, commit=False)  # 9, 10 aborted, control record 11
    reader = reading(topic)
    batches = drain(reader, 12)
    assert [o for b in batches for o in b.offsets] == [0, 1, 7]
    assert batches[0].start == 0
    assert batches[-1].end == 12
    assert all(left.end == right.start for left, right in pairwise(batches))
    assert reader.read(100) is None
    assert reader.lag() == 0


def test_a_lane_of_nothing_but_gaps(broker: Broker, reading: Reading) -> None:
    """Progress passes a lane that holds no record that counts."""
    topic = topic_on(broker)
    transact(broker, topic, 3, commit=False)
    batches = drain(reading(topic), 4)
    assert [len(batch) for batch in batches] == [0]
    assert (batches[0].start, batches[0].end) == (0, 4)


def test_batches_are_bounded(broker: Broker, reading: Reading) -> None:
    """A batch has at most the asked records and 64 KiB; a single larger record goes alone."""
    topic = topic_on(broker)
    values = [b"s"] * 700 + [b"m" * 20_000] * 10 + [b"x" * 200_000, b"y"]
    send_values(broker, topic, *values)
    reader = reading(topic)
    time.sleep(0.5)  # so that all of it is there to be taken
    batches = drain(reader, len(values), room=256)
    assert [v for b in batches for v in b.values] == values
    for batch in batches:
        size = sum(len(value or b"") for value in batch.values)
        assert len(batch) <= 256
        assert size <= BATCH_BYTES == 64 * 1024 or len(batch) == 1
    assert max(len(batch) for batch in batches) == 256


def test_holds_no_more_large_records_than_the_client_gives_at_once(
    broker: Broker, reading: Reading
) -> None:
    """While some are left to make a batch of, the reader takes no more from the client."""
    topic = topic_on(broker)
    value = b"x" * 200_000
    send_values(broker, topic, *[value] * 100)
    reader = reading(topic)
    held = 0
    for done in range(1, 101):
        [batch] = drain(reader, done)
        assert batch.size >= len(value)
        held = max(held, reader._held)
    assert 0 < held <= LANE_AHEAD_BYTES + FETCH_BYTES + len(value)
    assert reader._held == 0


@pytest.mark.parametrize("room", [1, 3])
def test_room_is_respected(broker: Broker, reading: Reading, room: int) -> None:
    """Never more records than the budget has room for; nothing is lost by waiting for it."""
    topic = topic_on(broker)
    send_values(broker, topic, *[b"%d" % i for i in range(20)])
    batches = drain(reading(topic), 20, room)
    assert max(len(batch) for batch in batches) <= room
    assert [v for b in batches for v in b.values] == [b"%d" % i for i in range(20)]


def test_starts_in_the_middle(broker: Broker, reading: Reading) -> None:
    """The first record is that of the offset it was started at, or the one behind the gap."""
    topic = topic_on(broker)
    transact(broker, topic, 5, commit=True)
    send_values(broker, topic, b"last")
    assert [o for b in drain(reading(topic, 3), 7) for o in b.offsets] == [3, 4, 6]
    [batch] = drain(reading(topic, 5), 7)
    assert (batch.start, batch.end, list(batch.offsets)) == (5, 7, [6])


def test_watermarks(broker: Broker, reading: Reading) -> None:
    """The ends of the partition, deleted records taken off."""
    topic = topic_on(broker)
    reader = reading(topic)
    assert reader.watermarks() == Watermarks(0, 0)
    send_values(broker, topic, b"a", b"b", b"c")
    delete(broker, topic, 2)
    assert reader.watermarks() == Watermarks(2, 3)


def delete(broker: Broker, topic: str, offset: int) -> None:
    """Delete the records below an offset, as retention does."""
    client = admin(broker)
    where = TopicPartition(topic, 0, offset)
    for future in client.delete_records([where]).values():
        future.result(20)


def test_deleted_by_retention(broker: Broker, reading: Reading) -> None:
    """An offset that retention has deleted meanwhile ends the lane by its name."""
    topic = topic_on(broker)
    send_values(broker, topic, b"a", b"b", b"c")
    delete(broker, topic, 2)
    reader = reading(topic, 1)
    with pytest.raises(SourceError) as told:
        drain(reader, 3)
    assert f"{topic}/0 no longer has offset 1 " in str(told.value)
    assert "\n" not in str(told.value)


def test_nothing_to_read_does_not_wait(broker: Broker, reading: Reading) -> None:
    """A worker is never held up by an empty lane."""
    reader = reading(topic_on(broker))
    started = time.monotonic()
    for _ in range(50):
        assert reader.read(10) is None
    assert time.monotonic() - started < 1
