from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from flows.access import max_message_bytes
from flows.settings import Settings
from harness.broker import Broker
from headrace.v1.embedding_pb2 import Embedding
from operators.documents import Decoder
from operators.records import Lane, OutcomeBatch
from recovery.progress import Board
from recovery.watchdog import Watchdog
from sinks import committer, topic
from sinks.errors import SinkError
from sinks.messages import MessageEncoder
from sinks.topic import TRANSACTIONS_PER_S, LaneWriter, TopicPartitionSink, TopicSink, Writing
from telemetry.metrics import Metrics
from tests.brokers import config_of, read_all, send_values, topic_on
from tests.samples import dead_letter, embedding, outcomes, tombstone, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from confluent_kafka import Message


class Ends:
    """What would end the process."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def __call__(self, message: str, code: int) -> None:
        """End."""
        self.told.append((message, code))


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Ends:
    """Notes what would end the process, whoever ends it."""
    noted = Ends()
    defaults = committer.Committer.__init__.__defaults__
    assert defaults is not None
    changed = (*defaults[:-1], noted)
    monkeypatch.setattr(committer.Committer.__init__, "__defaults__", changed)
    monkeypatch.setattr("recovery.watchdog.end_process", noted)
    return noted


class Bench:
    """A source topic with records, output topics, and what writes to them."""

    def __init__(self, broker: Broker, partitions: int = 1) -> None:
        self.broker = broker
        self.source = topic_on(broker, partitions)
        self.out, self.dead = topic_on(broker), topic_on(broker)
        self.lane = Lane(self.source, 0)
        self.config = config_of(broker)
        self.board = Board()
        self.metrics = Metrics()
        for partition in range(partitions):
            send_values(broker, self.source, *[b"v"] * 60, partition=partition)

    @property
    def writing(self) -> Writing:
        """How lanes are written."""
        return Writing(
            self.config,
            MessageEncoder(self.out, self.dead, "float32", "m", "f"),
            "lz4",
            max_message_bytes(Settings(), 8),
            self.board,
            Watchdog(),
            self.metrics,
        )

    def writer(self) -> LaneWriter:
        """A writer of the lane."""
        return LaneWriter(self.writing, self.lane, 0.0)

    def batch(
        self, first: int, last: int, *, mark: str = "", end: int | None = None
    ) -> OutcomeBatch:
        """Embeddings of the records from `first` up to `last`."""
        rows = [embedding(f"{i}", f"{mark}{i}") for i in range(first, last)]
        return outcomes(rows, first, lane=self.lane, end=end)

    def committed(self, lane: Lane | None = None) -> int | None:
        """The group's committed offset."""
        lane = lane or self.lane
        consumer = self.config.consumer()
        try:
            return self.config.committed(consumer, lane.topic, lane.partition)
        finally:
            consumer.close()

    @property
    def offsets(self) -> list[int]:
        """The source offsets of what a reader of the embeddings sees, in order."""
        return [source_of(message) for message in read_all(self.broker, self.out)]


def source_of(message: Message) -> int:
    """The offset that a record is the outcome of."""
    value = dict(message.headers() or [])["headrace-source"]
    assert isinstance(value, bytes)
    return int(value.decode().rpartition("/")[2])


@pytest.fixture
def bench(broker: Broker) -> Bench:
    """A bench on the shared broker."""
    return Bench(broker)


@pytest.mark.kafka
def test_outcomes_and_offset_are_one_transaction(bench: Bench) -> None:
    """Embeddings, tombstones, dead letters and progress arrive together, in order."""
    writer = bench.writer()
    rows = [embedding("a", "x"), tombstone("b"), dead_letter("no_text"), embedding("c", "y")]
    writer.write(outcomes(rows, 0, lane=bench.lane, end=9))
    writer.close()
    found = read_all(bench.broker, bench.out)
    assert [(m.key(), m.value() is None) for m in found] == [
        (b"a", False),
        (b"b", True),
        (b"c", False),
    ]
    assert [source_of(m) for m in found] == [0, 1, 3]
    assert Embedding.FromString(found[0].value() or b"").id == "a"
    [dead] = read_all(bench.broker, bench.dead)
    assert dict(dead.headers() or [])["headrace-error"] == b"no_text"
    assert bench.committed() == 9
    assert bench.board.get("topic", bench.lane.key) == 9
    sent = bench.metrics.registry.get_sample_value(
        "headrace_records_sent_total", {"sink": "topic", "outcome": "embedding"}
    )
    assert sent == 2


@pytest.mark.kafka
def test_progress_alone_is_committed(bench: Bench) -> None:
    """A batch without records moves the group's offset, and a lane's start is noted at once."""
    writer = bench.writer()
    writer.write(outcomes([], 0, lane=bench.lane, end=0))
    until(lambda: bench.committed() == 0)
    writer.write(outcomes([], 0, lane=bench.lane, end=7))
    writer.close()
    assert bench.committed() == 7
    assert bench.offsets == []


@pytest.mark.kafka
def test_a_replay_below_the_floor_is_dropped(bench: Bench) -> None:
    """A writer drops what was committed when it was made, to the record, and sends the rest."""
    first = bench.writer()
    first.write(bench.batch(0, 10))
    first.close()
    second = bench.writer()
    assert bench.board.get("topic", bench.lane.key) == 10
    for start in range(0, 16, 4):
        second.write(bench.batch(start, start + 4, mark="again"))
    second.close()
    assert bench.offsets == list(range(16))
    assert bench.committed() == 16


@pytest.mark.kafka
def test_the_floor_does_not_move(bench: Bench) -> None:
    """The offset is read once: whoever moves it later makes no record of this run disappear."""
    writer = bench.writer()
    consumer = bench.config.consumer()
    consumer.commit(offsets=[TopicPartition(bench.source, 0, 30)], asynchronous=False)
    consumer.close()
    writer.write(bench.batch(0, 10))
    writer.close()
    assert bench.offsets == list(range(10))


@pytest.mark.kafka
def test_a_torn_seam_is_refused(bench: Bench) -> None:
    """Records that were lost on the way are never passed over in silence."""
    writer = bench.writer()
    writer.write(bench.batch(0, 3))
    with pytest.raises(SinkError, match="starts at 4, after one that ended at 3"):
        writer.write(bench.batch(4, 5))
    writer.close()
    assert bench.committed() == 3


@pytest.mark.kafka
def test_a_second_writer_fences_the_first(bench: Bench, ends: Ends) -> None:
    """The first ends by one line that names the application id, and nothing is there twice."""
    first = bench.writer()
    first.write(bench.batch(0, 5))
    until(lambda: bench.board.get("topic", bench.lane.key) == 5)
    second = bench.writer()
    first.write(bench.batch(5, 10))
    until(lambda: bool(ends.told))
    [(message, code)] = ends.told
    name = bench.config.application_id
    assert message.startswith(f"headrace: kafka.application_id: {name}: a second copy of this flow")
    assert code == 1
    second.write(bench.batch(0, 12))
    second.close()
    first.close()
    assert bench.offsets == list(range(12))
    assert bench.committed() == 12
    assert len(ends.told) == 1


@pytest.mark.kafka
def test_a_crash_within_a_transaction_leaves_nothing(bench: Bench) -> None:
    """What a dead writer had open is settled by the next one and seen by nobody."""
    dead = bench.writer()
    dead._producer.begin_transaction()
    dead._produce(list(bench.writing.encoder.records(bench.batch(0, 5))))
    dead._send_offset(5)
    dead._producer.flush(10)
    after = bench.writer()
    after.write(bench.batch(0, 5))
    after.close()
    assert bench.offsets == list(range(5))
    dead.close()


@pytest.mark.kafka
def test_an_aborted_transaction_is_repeated(bench: Bench, ends: Ends) -> None:
    """Where librdkafka asks for an abort, all records are sent again, in order and once."""
    writer = bench.writer()
    real = writer._send_offset
    failures = iter([KafkaError._TIMED_OUT, KafkaError._FAIL])

    def failing(next_offset: int) -> None:
        code = next(failures, None)
        if code is None:
            real(next_offset)
            return
        abort = code == KafkaError._FAIL
        raise KafkaException(
            KafkaError(code, "made up", False, not abort, abort)  # noqa: FBT003 - librdkafka's own
        )

    writer._send_offset = failing  # type: ignore[method-assign]
    writer.write(bench.batch(0, 20))
    writer.close()
    assert ends.told == []
    assert next(failures, None) is None
    assert bench.offsets == list(range(20))
    assert bench.committed() == 20


@pytest.mark.kafka
def test_the_broker_goes_and_comes_back(tmp_path: Path, ends: Ends) -> None:
    """A lane whose only broker was killed goes on by itself, and what it wrote is whole."""
    with Broker(folder=tmp_path / "kafka") as own:
        bench = Bench(own)
        writer = bench.writer()
        writer.write(bench.batch(0, 20))
        until(lambda: bench.board.get("topic", bench.lane.key) == 20)
        own.kill()
        writer.write(bench.batch(20, 40))
        own.restart()
        writer.write(bench.batch(40, 60))
        until(lambda: bench.board.get("topic", bench.lane.key) == 60, timeout_s=60)
        writer.close()
        assert ends.told == []
        assert bench.offsets == list(range(60))


@pytest.mark.kafka
def test_a_missing_topic_is_told(bench: Bench, ends: Ends) -> None:
    """A topic that can't be written ends the process by one line, not by silence."""
    bench.out = "bad/name"
    writer = bench.writer()
    writer.write(bench.batch(0, 1))
    until(lambda: bool(ends.told), 40)
    writer.close()
    message, code = ends.told[0]
    assert message.startswith("headrace: embeddings.topic: ")
    assert "\n" not in message
    assert code == 1
    assert bench.committed() is None


@pytest.mark.kafka
def test_a_dead_letter_with_large_headers_passes(bench: Bench, ends: Ends) -> None:
    """A record that the source could hold can always be written: none stops the lane for ever."""
    headers = (("big", b"h" * 140_000),)
    dead = Decoder().decode(b"k", b"x" * 890_000, headers, 0).dead
    assert dead is not None
    writer = bench.writer()
    writer.write(outcomes([dead_letter(dead.code, dead.original)], 0, lane=bench.lane))
    until(lambda: bool(ends.told) or bench.board.get("topic", bench.lane.key) == 1)
    writer.close()
    assert ends.told == []


@pytest.mark.kafka
def test_part_opens_lanes_as_they_come(broker: Broker) -> None:
    """A part writes each lane by a producer of its own, those added while it runs too."""
    bench = Bench(broker, partitions=2)
    lanes = [Lane(bench.source, partition) for partition in range(2)]
    sink = TopicPartitionSink(bench.writing, lambda: 0.0)
    for first in range(0, 6, 3):
        pieces = [
            outcomes([embedding(f"{lane}{i}") for i in range(3)], first, lane=lane)
            for lane in lanes
        ]
        sink.write_batch([(piece.slice(0, 1), piece.slice(1, 3)) for piece in pieces])
    sink.close()
    assert sorted(bench.offsets) == sorted([*range(6), *range(6)])
    assert [bench.committed(lane) for lane in lanes] == [6, 6]


def test_parts_are_named_as_the_sources_are() -> None:
    """Each lane has a part; one that came later goes to the first."""
    lanes = (Lane("t", 10), Lane("t", 9), Lane("s", 0))
    nothing: Any = None
    sink = TopicSink(lanes, nothing)
    assert sink.list_parts() == ["s/000000", "t/000009", "t/000010"]
    assert [sink.part_fn(lane.key) for lane in lanes] == [2, 1, 0]
    assert sink.part_fn("t/000011") == 0


def test_lanes_of_a_process_share_its_transactions() -> None:
    """A lane gathers for as long as its own process's lanes need, however many there are."""
    writing: Any = SimpleNamespace(parts=[])
    sink = TopicSink(tuple(Lane("t", number) for number in range(40)), writing)
    parts = [sink.build_part("topic", f"t/{number:06d}", None) for number in range(4)]
    assert [part.pause_s() for part in parts] == [4 / TRANSACTIONS_PER_S] * 4


class FakeProducer:
    """A producer that notes what it is asked to commit."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.produced = 0

    def produce(self, *_: Any, **__: Any) -> None:
        """Note a record."""
        self.produced += 1

    def send_offsets_to_transaction(self, where: list[TopicPartition], *_: Any) -> None:
        """Note an offset."""
        self.offsets.append(where[0].offset)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


@pytest.mark.kafka
def test_an_idle_producer_is_polled(bench: Bench) -> None:
    """What it tells of itself is taken, and so does not pile up, while nothing is committed."""
    bench.metrics = Metrics(clients_s=0.05)
    writer = bench.writer()
    value = bench.metrics.registry.get_sample_value
    until(lambda: value("headrace_send_queue_records") == 0)
    writer.close()


@pytest.fixture
def idle_writer(monkeypatch: pytest.MonkeyPatch) -> tuple[LaneWriter, FakeProducer, list[Any]]:
    """A writer without a broker whose thread never comes to commit what is queued."""
    producer = FakeProducer()
    queued: list[Any] = []
    monkeypatch.setattr(topic, "fenced_producer", lambda *_, **__: producer)
    stuck = SimpleNamespace(put=queued.append, close=lambda: None)
    monkeypatch.setattr(topic, "Committer", lambda *_, **__: stuck)
    monkeypatch.setattr(topic, "KEEP_ALIVE_S", 0.0)
    consumer = SimpleNamespace(consumer_group_metadata=lambda: None, close=lambda: None)
    kafka: Any = SimpleNamespace(
        consumer=lambda: consumer, committed=lambda *_: 3, application_id="app"
    )
    writing = Writing(
        kafka,
        MessageEncoder("out", "dead", "float32", "m", "f"),
        "lz4",
        1_000_000,
        Board(),
        Watchdog(),
        Metrics(),
    )
    return LaneWriter(writing, Lane("t", 0), 0.0), producer, queued


def test_keep_alive_commits_only_what_is_written(
    idle_writer: tuple[LaneWriter, FakeProducer, list[Any]],
) -> None:
    """The offset that an idle lane commits again never passes a batch that is still queued.

    The worker's thread queues while the committer's thread keeps alive.
    """
    writer, producer, queued = idle_writer
    writer.write(outcomes([embedding("a")], 3, lane=Lane("t", 0)))
    assert len(queued) == 1
    writer._keep_alive()
    assert producer.produced == 0
    assert all(offset <= 3 for offset in producer.offsets)


def test_keep_alive_commits_the_same_offset_again(
    idle_writer: tuple[LaneWriter, FakeProducer, list[Any]],
) -> None:
    """An idle lane's offset stays with the broker."""
    writer, producer, queued = idle_writer
    writer.write(outcomes([embedding("a")], 3, lane=Lane("t", 0)))
    writer._commit(queued)
    writer._keep_alive()
    assert producer.offsets == [4, 4]
    assert producer.produced == 1
