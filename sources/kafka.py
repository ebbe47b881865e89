"""The Kafka source: one part for each partition of the source topics."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

import structlog
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from operators.records import Lane, RecordBatch
from operators.worker import PerWorker
from recovery.fencing import fence
from recovery.progress import Board, resume_offset
from recovery.watchdog import ending
from sources.budget import InFlight, WorkerBudget
from sources.lane import LaneReader
from sources.pace import WorkerPace
from sources.watch import QUIET_S, BrokerWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from clients.kafka import KafkaConfig
    from recovery.health import FlowHealth
    from recovery.shutdown import Shutdown
    from sources.budget import Amount
    from telemetry.metrics import Metrics

__all__ = ["KafkaSource", "Worker"]

log = structlog.get_logger(__name__)

REST: Final = timedelta(milliseconds=2)
"""How long a lane rests that had nothing to read; a document waits half of it on average."""

BEHIND_REST: Final = timedelta(milliseconds=10)
"""How long it rests while the model works off a backlog: what comes out of it has waited longer,
and what goes in next waits there already."""

LONG_REST: Final = timedelta(milliseconds=20)
QUIET: Final = timedelta(seconds=3)
"""How long it rests when nothing has come for a while, and how long that is. A worker that is woken
uses 0.2 ms of a core (caches are cold by then), of which an idle flow has no use; a document now
and then should still not wait."""

REPORT_EVERY_S: Final = 0.25
"""How often a lane's gauges are set, in seconds."""

STEP_SHARE: Final = 0.4
"""The length of a step of a fresh worker, as a share of the freshness target."""

SNAPSHOT_VERSION: Final = 1


class Model(Protocol):
    """The slow step behind the source and what gathers its results; see `operators.background`."""

    def ready(self, *, ahead: bool) -> bool:
        """Whether the calling worker should read more; `ahead` while the step still runs."""

    def finished(self) -> bool:
        """Whether a nudge would bring something out."""

    def release(self) -> None:
        """Nothing more is read: hold nothing back for company."""

    def idle(self) -> bool:
        """Whether all that the calling worker has read came out."""


@dataclass(frozen=True)
class Reading:
    """How the lanes are read, and with what.

    Attributes:
        kafka: The broker.
        start: Where a lane starts of which no sink knows anything.
        missing: What to do when the topic no longer has a record that a sink lacks.
        max_in_flight: The most records a worker has read that are not yet in both sinks.
        max_in_flight_bytes: The most bytes of them.
        read_ahead: How many bytes of each lane the client reads ahead.
        freshness_ms: Within how many milliseconds a document is to reach the topic.
        model: Whether the step behind the source can do with more.
        tables: For each sink that is a table, what reads its next offset of each lane it knows.
        board: The sinks' progress, as far as this process knows it.
        shutdown: Whether to end.
        health: Is told how the lanes are.
        metrics: Where to count.
        end: What ends the process on an error of ours, unless `end_process` does.
    """

    kafka: KafkaConfig
    start: Literal["earliest", "latest"]
    missing: Literal["error", "skip"]
    max_in_flight: int
    max_in_flight_bytes: int
    read_ahead: int
    freshness_ms: float
    model: Model
    tables: Mapping[str, Callable[[Collection[str]], Mapping[str, int]]]
    board: Board
    shutdown: Shutdown
    health: FlowHealth
    metrics: Metrics
    end: Callable[[str, int], None] | None = None


class Worker(NamedTuple):
    """What the lanes that one worker reads share.

    Attributes:
        budget: What they may have in flight.
        pace: How much they may read at a time.
    """

    budget: WorkerBudget
    pace: WorkerPace

    @classmethod
    def of(cls, reading: Reading) -> Worker:
        """A worker that has no lanes yet."""
        return cls(
            WorkerBudget(reading.max_in_flight, reading.max_in_flight_bytes),
            WorkerPace(STEP_SHARE * reading.freshness_ms / 1000),
        )


@dataclass
class KafkaSource(FixedPartitionedSource[RecordBatch, dict[str, int]]):
    """Reads topics in batches, one lane for each partition.

    Parallelism: a part for each partition that the topics have when the flow starts; Bytewax
    spreads the parts evenly over the workers. Partitions added later are read at once, by the
    part of the topic's first partition, and get parts of their own at the next start.

    Guarantee: a lane is read in offset order from the oldest of the sinks' progress, so no sink
    lacks a record. Nothing is committed here: the topic sink does, with the outcomes.

    A replay reads records again that one sink has already; that sink drops them. The snapshot
    (the next offset) is for people to look at: progress that sinks hold is newer and truer.
    """

    lanes: tuple[Lane, ...]
    reading: Reading
    _worker: PerWorker[Worker] = field(init=False)
    _watch: BrokerWatch = field(init=False)

    def __post_init__(self) -> None:
        self._worker = PerWorker(lambda: Worker.of(self.reading))
        self._watch = BrokerWatch(
            self.reading.kafka,
            sorted({lane.topic for lane in self.lanes}),
            self.reading.health.broker_away,
            self.reading.metrics.clients.other("broker watch", 2 * QUIET_S),
        )

    def list_parts(self) -> list[str]:
        """The keys of the lanes; Bytewax asks for them when it begins."""
        self.reading.health.begins()
        return sorted(lane.key for lane in self.lanes)

    def build_part(
        self,
        step_id: str,  # noqa: ARG002 - Bytewax's interface
        for_part: str,
        resume_state: dict[str, int] | None,  # noqa: ARG002 - see the class
    ) -> KafkaPartition:
        """Start a lane, on the worker that will read it."""
        lane = Lane.parse(for_part)
        adopted_by = self._adopted_by(lane)
        return KafkaPartition(lane, self.reading, self._worker(), self._watch, adopted_by)

    def _adopted_by(self, lane: Lane) -> set[int] | None:
        """The partitions that have parts, if this lane's part is to look for more."""
        known = {other.partition for other in self.lanes if other.topic == lane.topic}
        return known if lane.partition == min(known) else None


class KafkaPartition(StatefulSourcePartition[RecordBatch, dict[str, int]]):
    """A lane, and those of partitions that were added while the flow ran.

    Args:
        lane: The part's own.
        reading: How lanes are read.
        worker: What the lanes of its worker share.
        watch: Knows whether the broker is there, and its partitions.
        known: The partitions of the lane's topic that have parts; None when another part looks
            for new ones.
    """

    def __init__(
        self,
        lane: Lane,
        reading: Reading,
        worker: Worker,
        watch: BrokerWatch,
        known: set[int] | None,
    ) -> None:
        self._reading = reading
        self._worker = worker
        self._watch = watch
        self._known = known
        self._awake: datetime | None = None
        self._moved = datetime.now(UTC)
        self._lanes: list[ActiveLane] = []
        self._read = ending(self._read_lanes, reading.end)
        ending(self._add, reading.end)(lane, reading.start)
        watch.join()

    def next_batch(self) -> list[RecordBatch]:
        """What there is to read, without waiting; ends the input when the flow is asked to."""
        model, asked = self._reading.model, self._reading.shutdown.asked
        if asked:
            if model.idle():
                self._leave()
                raise StopIteration
            model.release()
        now = datetime.now(UTC)
        if model.finished():
            batches = [self._nudge()]
        elif asked or not model.ready(ahead=self._worker.pace.behind):
            # Hundreds of times a second while the model works, so nothing else is looked at.
            self._awake = now + (BEHIND_REST if self._worker.pace.behind else REST)
            return []
        else:
            batches = self._read()
        if batches:
            self._moved = now
        self._awake = None if batches else now + self._rest(now)
        return batches

    def _rest(self, now: datetime) -> timedelta:
        """How long until there may be something to read again."""
        busy = now - self._moved < QUIET or not self._reading.model.idle()
        return REST if busy else LONG_REST

    def _read_lanes(self) -> list[RecordBatch]:
        self._watch_broker()
        read = [lane.read(self._worker) for lane in self._lanes]
        # Not by truth: a batch without records is passed on, for the progress in it.
        batches = [batch for batch in read if batch is not None]
        self._adopt_partitions()
        return batches

    def _nudge(self) -> RecordBatch:
        reader = self._lanes[0].reader
        return RecordBatch(reader.lane, reader.position, reader.position, nudge=True)

    def next_awake(self) -> datetime | None:
        """When to be asked again; None for at once."""
        return self._awake

    def snapshot(self) -> dict[str, int]:
        """The next offset of the part's own lane, as plain data."""
        self._worker.pace.epoch_ended(time.monotonic())
        return {"version": SNAPSHOT_VERSION, "next_offset": self._lanes[0].reader.position}

    def close(self) -> None:
        """Leave the broker."""
        self._leave()
        for lane in self._lanes:
            lane.reader.close()
        self._watch.leave()

    def _leave(self) -> None:
        for lane in self._lanes:
            self._reading.health.ends(lane.reader.lane.key)

    def _add(self, lane: Lane, start: Literal["earliest", "latest"]) -> None:
        self._worker.budget.join()
        self._reading.health.starts(lane.key)
        self._lanes.append(ActiveLane(lane, self._reading, start))

    def _watch_broker(self) -> None:
        if any(lane.reader.take_away() for lane in self._lanes):
            self._watch.suspect()
        self._watch.check()

    def _adopt_partitions(self) -> None:
        if self._known is None:
            return
        topic = self._lanes[0].reader.lane.topic
        for partition in self._watch.partitions(topic) - self._known:
            log.info("partition added", stage="source", topic=topic, partition=partition)
            self._known.add(partition)
            # Whatever `source.start` says: what came before the flow noticed counts too.
            self._add(Lane(topic, partition), "earliest")


class ActiveLane:
    """A lane that is being read: its reader, and what it has in flight.

    Starting it follows steps 1 and 2 of `recovery.progress`.
    """

    def __init__(self, lane: Lane, reading: Reading, start: Literal["earliest", "latest"]) -> None:
        self._reading = reading
        self._in_flight = InFlight()
        self._asked = 0.0
        self._reported = 0.0
        metrics, labels = reading.metrics, (lane.topic, str(lane.partition))
        self._consumed = metrics.consumed.labels(*labels)
        self._lag = metrics.lag.labels(*labels)
        self._flying = metrics.in_flight.labels(*labels)
        self._flying_bytes = metrics.in_flight_bytes.labels(*labels)
        meter = metrics.clients.reader(f"reader of {lane}")
        self.reader = LaneReader(reading.kafka, lane, reading.read_ahead, meter)
        fence(reading.kafka, lane)
        offset = self._resume_at(lane, start)
        log.info(
            "lane starts", stage="source", topic=lane.topic, partition=lane.partition, offset=offset
        )
        self.reader.start(offset)
        self._first: RecordBatch | None = RecordBatch(lane, offset, offset)

    def _resume_at(self, lane: Lane, start: Literal["earliest", "latest"]) -> int:
        committed = self._reading.kafka.committed(self.reader.consumer, lane.topic, lane.partition)
        progress = {"topic": committed}
        for name, held in self._reading.tables.items():
            progress[name] = held([lane.key]).get(lane.key)
        marks = self.reader.watermarks()
        return resume_offset(str(lane), marks, progress, start, self._reading.missing)

    def read(self, worker: Worker) -> RecordBatch | None:
        """The next records, if the budget has room for some."""
        if self._first is not None:
            # An empty batch first: it makes both sinks note where the lane starts.
            first, self._first = self._first, None
            return first
        now = time.monotonic()
        if now - self._reported > REPORT_EVERY_S:
            self._report(now)
        most = worker.pace.room(self, now)
        if not self.reader.waiting():
            return None
        flying = self._flight()
        share = worker.budget.share
        if flying.exhausts(share):
            self._ask_sinks()
            return None
        batch = self.reader.read(min(most, share.records - flying.records))
        if batch is not None:
            worker.pace.took(len(batch), drained=batch.drained)
            self._in_flight.add(batch)
            self._consumed.inc(len(batch))
        return batch

    def _flight(self) -> Amount:
        """What has been read and is not in both sinks."""
        return self._in_flight.settle(self._reading.board.written(self.reader.lane.key))

    def _report(self, now: float) -> None:
        """Set the gauges, some times a second: a lane is asked hundreds of times."""
        self._reported = now
        flying = self._flight()
        self._lag.set(self.reader.lag())
        self._flying.set(flying.records)
        self._flying_bytes.set(flying.size)
        lane = self.reader.lane.key
        self._reading.health.seen(lane, self.reader.readable(), flying.records)

    def _ask_sinks(self) -> None:
        """Read the progress of sinks that run in another process, some times a second."""
        now = time.monotonic()
        if now - self._asked > 0.1:
            self._asked = now
            for sink in self._reading.board.sinks:
                self._reading.board.refresh(sink, [self.reader.lane.key])
