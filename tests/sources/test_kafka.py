from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.cimpl import NewPartitions

from harness.broker import Broker
from operators.records import Lane, RecordBatch
from recovery.health import FlowHealth
from recovery.progress import Board
from recovery.shutdown import Shutdown
from recovery.watchdog import Watchdog
from sources import kafka, watch
from sources.budget import read_ahead
from sources.kafka import KafkaPartition, KafkaSource, Reading, Worker
from sources.watch import BrokerWatch
from telemetry.metrics import Metrics
from tests.brokers import admin, config_of, send_values, topic_on, transact
from tests.samples import until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from clients.kafka import KafkaConfig

pytestmark = pytest.mark.kafka


class Ended(BaseException):
    """What ended the process."""


@pytest.fixture(autouse=True)
def _no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(message: str, code: int) -> NoReturn:
        raise Ended(message, code)

    monkeypatch.setattr("recovery.watchdog.end_process", end)


@dataclass
class Model:
    """The step behind the source."""

    is_ready: bool = True
    is_finished: bool = False
    is_idle: bool = True
    is_released: bool = False

    def ready(self, *, ahead: bool) -> bool:  # noqa: ARG002 - the source's protocol
        """See `sources.kafka.Model`."""
        return self.is_ready

    def finished(self) -> bool:
        """See `sources.kafka.Model`."""
        return self.is_finished

    def release(self) -> None:
        """See `sources.kafka.Model`."""
        self.is_released = True

    def idle(self) -> bool:
        """See `sources.kafka.Model`."""
        return self.is_idle


@dataclass
class Bench:
    """A lane's part, and what is around it."""

    config: KafkaConfig
    topic: str
    start: str = "earliest"
    missing: str = "error"
    max_in_flight: int = 1000
    max_in_flight_bytes: int = 64 << 20
    model: Model = field(default_factory=Model)
    table: dict[str, int] = field(default_factory=dict)
    known: set[int] | None = None
    board: Board = field(default_factory=Board)
    shutdown: Shutdown = field(default_factory=Shutdown)
    metrics: Metrics = field(default_factory=Metrics)

    @cached_property
    def health(self) -> FlowHealth:
        """How the flow is."""
        servers = self.config.bootstrap_servers
        return FlowHealth(self.board, self.board.sinks, 120.0, servers, Watchdog(), self.metrics)

    def __post_init__(self) -> None:
        for sink in ("topic", "table"):
            self.board.own(sink, f"{self.topic}/000000")

    @cached_property
    def worker(self) -> Worker:
        """What its lanes share."""
        return Worker.of(self.reading)

    @property
    def reading(self) -> Reading:
        """How lanes are read."""
        return Reading(
            self.config,
            self.start,  # type: ignore[arg-type]
            self.missing,  # type: ignore[arg-type]
            self.max_in_flight,
            self.max_in_flight_bytes,
            read_ahead(1),
            100.0,
            self.model,
            {"table": self.progress},
            self.board,
            self.shutdown,
            self.health,
            self.metrics,
        )

    def progress(self, lanes: Collection[str]) -> Mapping[str, int]:
        """The table's."""
        return {lane: self.table[lane] for lane in lanes if lane in self.table}

    def part(self) -> KafkaPartition:
        """The part of the first partition."""
        watching = BrokerWatch(self.config, [self.topic])
        return KafkaPartition(Lane(self.topic, 0), self.reading, self.worker, watching, self.known)


def taken(part: KafkaPartition, done: Callable[[list[RecordBatch]], bool]) -> list[RecordBatch]:
    """Batches until there are enough."""
    batches: list[RecordBatch] = []
    deadline = time.monotonic() + 20
    while not done(batches):
        assert time.monotonic() < deadline, batches
        batches += part.next_batch()
        time.sleep(0.001)
    return batches


def records(batches: list[RecordBatch]) -> int:
    """How many records there are."""
    return sum(len(batch) for batch in batches)


def more(part: KafkaPartition, seconds: float = 0.4) -> list[RecordBatch]:
    """What still comes in a while."""
    until = time.monotonic() + seconds
    return taken(part, lambda _: time.monotonic() > until)


def test_starts_at_the_older_sink(broker: Broker) -> None:
    """The lane is read from the older of both sinks' progress on, and told so to both first.

    An empty batch goes first: it makes a sink note where a lane starts that has nothing to read.
    """
    bench = Bench(config_of(broker), topic_on(broker))
    send_values(broker, bench.topic, *[b"v"] * 5)
    bench.table[f"{bench.topic}/000000"] = 2
    consumer = bench.config.consumer()
    consumer.commit(offsets=[TopicPartition(bench.topic, 0, 4)], asynchronous=False)
    consumer.close()
    part = bench.part()
    batches = taken(part, lambda got: records(got) == 3)
    assert [offset for batch in batches for offset in batch.offsets] == [2, 3, 4]
    assert (batches[0].start, batches[0].end) == (2, 2)
    assert part.snapshot() == {"version": 1, "next_offset": 5}
    part.close()


@pytest.mark.parametrize(("start", "expected"), [("earliest", 0), ("latest", 3)])
def test_the_first_batch_says_where_a_lane_starts(
    broker: Broker, start: str, expected: int
) -> None:
    """So `latest` holds from the first start on, though the flow ends before a record comes."""
    bench = Bench(config_of(broker), topic_on(broker), start=start)
    send_values(broker, bench.topic, *[b"v"] * 3)
    part = bench.part()
    [first] = part.next_batch()
    assert (len(first), first.start, first.end) == (0, expected, expected)
    part.close()


def test_batches_join_across_gaps(broker: Broker) -> None:
    """A batch without records, where only a gap was passed, is given too: no seam is torn."""
    bench = Bench(config_of(broker), topic_on(broker))
    part = bench.part()
    batches = part.next_batch()
    for _ in range(3):
        transact(broker, bench.topic, 2, commit=False)
        batches += more(part, 0.3)
        transact(broker, bench.topic, 1, commit=True)
        batches += more(part, 0.3)
    batches += taken(part, lambda _: part.snapshot()["next_offset"] == 15)
    assert records(batches) == 3
    assert all(left.end == right.start for left, right in pairwise(batches))
    assert batches[-1].end == 15
    part.close()


def test_the_budget_holds_the_lane_back(broker: Broker) -> None:
    """Not more than its share is read before the slower sink has some of it."""
    bench = Bench(config_of(broker), topic_on(broker), max_in_flight=10)
    send_values(broker, bench.topic, *[b"v"] * 50)
    part = bench.part()
    batches = taken(part, lambda got: records(got) == 10)
    assert records(more(part)) == 0
    lane = f"{bench.topic}/000000"
    bench.board.post("topic", lane, 50)
    assert records(more(part)) == 0
    bench.board.post("table", lane, batches[-1].end)
    assert records(taken(part, lambda got: records(got) >= 10)) == 10
    assert records(more(part)) == 0
    flying = bench.metrics.registry.get_sample_value(
        "headrace_in_flight_records", {"topic": bench.topic, "partition": "0"}
    )
    assert flying == 10
    part.close()


def test_the_budget_of_bytes_holds_the_lane_back(broker: Broker) -> None:
    """Large records are held back long before there are too many of them."""
    bench = Bench(config_of(broker), topic_on(broker), max_in_flight_bytes=1_000_000)
    send_values(broker, bench.topic, *[b"v" * 300_000] * 12)
    part = bench.part()
    batches = taken(part, lambda got: records(got) == 4)
    assert records(more(part)) == 0
    lane = f"{bench.topic}/000000"
    for sink in ("topic", "table"):
        bench.board.post(sink, lane, batches[1].end)
    assert records(taken(part, lambda got: records(got) >= 1)) == 1
    assert records(more(part)) == 0
    flying = bench.metrics.registry.get_sample_value(
        "headrace_in_flight_bytes", {"topic": bench.topic, "partition": "0"}
    )
    assert flying == 4 * 300_001  # each has a key of one byte
    part.close()


def test_lanes_of_a_worker_share_its_budget(broker: Broker) -> None:
    """Two lanes have half of it each, as long as both are read by the same worker."""
    topic = topic_on(broker, partitions=2)
    send_values(broker, topic, *[b"v"] * 50)
    bench = Bench(config_of(broker), topic, max_in_flight=20)
    source = KafkaSource((Lane(topic, 0), Lane(topic, 1)), bench.reading)
    assert source.list_parts() == [f"{topic}/000000", f"{topic}/000001"]
    parts = [source.build_part("read", key, None) for key in source.list_parts()]
    assert records(taken(parts[0], lambda got: records(got) >= 10)) == 10
    assert records(more(parts[0])) == 0
    for part in parts:
        part.close()


def test_workers_have_budgets_of_their_own(broker: Broker) -> None:
    """A lane of another worker's thread takes nothing from this one's budget."""
    topic = topic_on(broker, partitions=2)
    bench = Bench(config_of(broker), topic, max_in_flight=20)
    source = KafkaSource((Lane(topic, 0), Lane(topic, 1)), bench.reading)
    built = threading.Barrier(2)
    parts: list[KafkaPartition] = []

    def work(key: str) -> None:
        parts.append(source.build_part("read", key, None))
        built.wait(20)  # as workers, both are alive at once

    threads = [threading.Thread(target=work, args=(key,)) for key in source.list_parts()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [part._worker.budget.share.records for part in parts] == [20, 20]
    for part in parts:
        part.close()


def test_reads_when_the_model_can_do_with_more(broker: Broker) -> None:
    """What comes while the model is busy is gathered, and what it has finished is fetched."""
    bench = Bench(config_of(broker), topic_on(broker))
    part = bench.part()
    taken(part, lambda got: len(got) == 1)
    bench.model.is_ready = False
    send_values(broker, bench.topic, b"a", b"b")
    assert more(part) == []
    assert part.next_awake() is not None
    bench.model.is_finished = True
    [nudge] = part.next_batch()
    assert (nudge.nudge, len(nudge), nudge.start, nudge.end) == (True, 0, 0, 0)
    assert part.next_awake() is None
    bench.model.is_finished, bench.model.is_ready = False, True
    assert records(taken(part, lambda got: records(got) == 2)) == 2
    part.close()


def test_ends_when_the_model_has_given_back_all(broker: Broker) -> None:
    """Asked to end, a source reads no more, but lets what it read come out first."""
    bench = Bench(config_of(broker), topic_on(broker))
    part = bench.part()
    bench.model.is_idle = False
    bench.shutdown.ask()
    send_values(broker, bench.topic, b"a")
    assert more(part) == []
    bench.model.is_finished = True
    assert [batch.nudge for batch in part.next_batch()] == [True]
    bench.model.is_finished, bench.model.is_idle = False, True
    with pytest.raises(StopIteration):
        part.next_batch()
    part.close()


def test_new_partitions_are_adopted(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition that is added is read at once, from its beginning, whatever `source.start`."""
    monkeypatch.setattr(watch, "QUIET_S", 0.2)
    monkeypatch.setattr(watch, "AWAY_S", 0.2)
    topic = topic_on(broker)
    bench = Bench(config_of(broker), topic, start="latest", known={0})
    part = bench.part()
    part.next_batch()
    client = admin(broker)
    client.create_partitions([NewPartitions(topic, 3)])[topic].result(20)
    send_values(broker, topic, b"one", partition=1)
    send_values(broker, topic, b"two", b"three", partition=2)
    batches = taken(part, lambda got: records(got) == 3)
    found = {value: batch.lane for batch in batches for value in batch.values}
    assert found == {b"one": Lane(topic, 1), b"two": Lane(topic, 2), b"three": Lane(topic, 2)}
    assert part.snapshot()["next_offset"] == 0
    assert bench.worker.budget.share.records == bench.max_in_flight // 3
    part.close()


def test_the_watch_measures_round_trips(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow that is idle knows how far the broker is, and is told whether it is there."""
    monkeypatch.setattr(watch, "QUIET_S", 0.2)
    monkeypatch.setattr(watch, "AWAY_S", 0.1)
    told: list[bool] = []
    metrics = Metrics(clients_s=0.1)
    meter = metrics.clients.other("watch", 2 * watch.QUIET_S)
    watching = BrokerWatch(config_of(broker), [topic_on(broker)], told.append, meter)
    watching.join()
    labels = {"broker": broker.bootstrap_servers}
    value = metrics.registry.get_sample_value
    until(lambda: (value("headrace_broker_rtt_ms", labels) or 0) > 0, timeout_s=60)
    watching.leave()
    assert set(told) == {False}


def test_one_part_looks_for_new_partitions(broker: Broker) -> None:
    """The part of a topic's first partition looks, the others don't, or two would read it."""
    bench = Bench(config_of(broker), topic_on(broker, partitions=2))
    lanes = (Lane(bench.topic, 0), Lane(bench.topic, 1), Lane("other", 3))
    source = KafkaSource(lanes, bench.reading)
    assert [source._adopted_by(lane) for lane in lanes] == [{0, 1}, None, {3}]


def test_ends_when_asked(broker: Broker) -> None:
    """A shutdown lets out what is held back, then ends the input: all of it is committed."""
    bench = Bench(config_of(broker), topic_on(broker))
    part = bench.part()
    bench.model.is_idle = False
    part.next_batch()
    released = [bench.model.is_released]
    bench.shutdown.ask()
    assert part.next_batch() == []
    released.append(bench.model.is_released)
    assert released == [False, True]
    bench.model.is_idle = True
    with pytest.raises(StopIteration):
        part.next_batch()
    part.close()


def test_rests_only_when_there_was_nothing(broker: Broker) -> None:
    """A lane with records is asked again at once, one without a little later."""
    bench = Bench(config_of(broker), topic_on(broker))
    part = bench.part()
    taken(part, lambda _: part.next_awake() is not None)
    send_values(broker, bench.topic, b"v")
    taken(part, lambda got: records(got) == 1)
    assert part.next_awake() is None
    part.close()


def rest_of(part: KafkaPartition) -> timedelta:
    """How long a lane that has nothing to read rests."""
    now = datetime.now(UTC)
    assert part.next_batch() == []
    awake = part.next_awake()
    assert awake is not None
    return awake - now


def test_a_quiet_lane_looks_less_often(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane to which nothing has come for a while rests longer, unless the model is at work."""
    monkeypatch.setattr(kafka, "QUIET", timedelta(0))
    bench = Bench(config_of(broker), topic_on(broker))
    part = bench.part()
    taken(part, lambda _: part.next_awake() is not None)

    assert rest_of(part) >= kafka.LONG_REST
    bench.model.is_idle = False
    shortest = min(rest_of(part) for _ in range(20))
    assert kafka.REST <= shortest < kafka.LONG_REST
    part.close()


def test_a_backlog_is_looked_at_less_often(broker: Broker) -> None:
    """While the model works off a backlog the lane rests longer than while it is fresh."""
    bench = Bench(config_of(broker), topic_on(broker))
    part = bench.part()
    bench.model.is_ready = False

    assert min(rest_of(part) for _ in range(20)) < kafka.BEHIND_REST
    pace = part._worker.pace
    for step in range(3):
        pace.room("lane", float(step))
        pace.took(5, drained=False)
    assert pace.behind
    assert min(rest_of(part) for _ in range(20)) >= kafka.BEHIND_REST
    part.close()


def test_a_gap_in_the_topic_ends_the_start(broker: Broker) -> None:
    """A sink that lacks what retention has deleted is told at the start; `skip` goes on."""
    topic = topic_on(broker)
    send_values(broker, topic, b"a", b"b", b"c")
    client = admin(broker)
    for future in client.delete_records([TopicPartition(topic, 0, 2)]).values():
        future.result(20)
    table = {f"{topic}/000000": 1}
    config = config_of(broker)
    consumer = config.consumer()
    consumer.commit(offsets=[TopicPartition(topic, 0, 3)], asynchronous=False)
    consumer.close()
    with pytest.raises(Ended) as told:
        Bench(config, topic, table=table).part()
    assert told.value.args[0].startswith(f"headrace: source.topics: {topic}/0 starts at 2")
    assert told.value.args[1] == 1
    part = Bench(config, topic, table=table, missing="skip").part()
    batches = taken(part, lambda got: records(got) == 1)
    assert [offset for batch in batches for offset in batch.offsets] == [2]
    part.close()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that these tests may pause and kill."""
    with Broker(folder=tmp_path_factory.mktemp("own")) as running:
        yield running


class Log:
    """What is logged."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, **_: self.events.append(event)


def test_an_outage_is_reported_and_ends_in_time(
    own: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that is away is named once, is over when it answers, and ends the flow at last."""
    logged: Any = Log()
    monkeypatch.setattr(watch, "log", logged)
    bench = Bench(config_of(own, outage_s=30.0), topic_on(own))
    part = bench.part()
    send_values(own, bench.topic, b"before")
    taken(part, lambda got: records(got) == 1)
    own.kill()
    taken(part, lambda _: "broker away" in logged.events)
    more(part, 2.5)
    assert logged.events.count("broker away") == 1
    own.start()
    taken(part, lambda _: "broker back" in logged.events)
    send_values(own, bench.topic, b"after")
    batches = taken(part, lambda got: records(got) == 1)
    assert [value for batch in batches for value in batch.values] == [b"after"]
    own.kill()
    object.__setattr__(bench.config, "outage_s", 1.0)
    with pytest.raises(Ended) as told:
        more(part, 20)
    message, code = told.value.args
    wanted = f"headrace: kafka.bootstrap_servers: {own.bootstrap_servers}: away for 1 s"
    assert message.startswith(wanted)
    assert code == 1
    part.close()
