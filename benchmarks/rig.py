"""Subjects at work, each on topics and a table of its own, and what they use."""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks import meters
from benchmarks.subjects import Place
from benchmarks.usage import cpu_of, growth, peak_mib, threads_of
from benchmarks.watch import TopicWatch
from harness.process import HOST, HarnessError, free_port, tail

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from benchmarks.load import Paced, Written
    from benchmarks.remote import Remote
    from benchmarks.subjects import Started, Subject
    from benchmarks.watch import TableWatch
    from harness.broker import Broker

__all__ = ["PARTITIONS", "Drain", "Freshness", "Rig", "Running", "passed_on"]

PARTITIONS: Final = 2
_PASSED_ON: Final = ("HEADRACE_MODEL__", "HEADRACE_BATCH__")
_TIMEOUT_S: Final = 300.0
_JOIN_S: Final = 90.0
_REST_S: Final = 0.3


@dataclass(frozen=True, slots=True)
class Drain:
    """A backlog, from the moment that readers could see it.

    Attributes:
        docs: Documents.
        topic_s: Seconds until a consumer of the topic had seen the last; None without a topic.
        table_s: Seconds until the table was seen to hold them all; None without a table.
        cpu_s: CPU-seconds of all of the subject's processes, until both.
        broker_cpu_s: CPU-seconds of the broker, until both.
        peak_mib: The most memory that one of its processes had held by then.
        shares: By its own metrics; empty without.
        threads: CPU-seconds by the names of threads.
    """

    docs: int
    topic_s: float | None
    table_s: float | None
    cpu_s: float
    broker_cpu_s: float
    peak_mib: float
    shares: Mapping[str, float]
    threads: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Freshness:
    """A steady load, after its first seconds.

    Attributes:
        load: What the generator did.
        topic_ms: Of each document, timestamp to seen in the topic; empty without a topic.
        table_ms: Of each document, timestamp to seen in the table; empty without a table.
        cores: CPU-seconds of the subject in a second.
    """

    load: Paced
    topic_ms: Sequence[float]
    table_ms: Sequence[float]
    cores: float


def passed_on(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The settings of model and batches that the caller's environment has, and no others."""
    empty = folder / "headrace.toml"
    empty.touch()
    chosen = {name: value for name, value in environ.items() if name.startswith(_PASSED_ON)}
    return {**chosen, "HEADRACE_CONFIG": str(empty)}


class Rig:
    """A broker, a load generator and a folder, in which subjects are started one at a time.

    Args:
        broker: Runs.
        loader: A `benchmarks.load.Generator`.
        folder: Where tables, recovery stores and logs go.
    """

    def __init__(self, broker: Broker, loader: Remote, folder: Path) -> None:
        self._broker = broker
        self._loader = loader
        self._folder = folder
        # Silent: it outlives the broker.
        self._admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
        self._name = f"benchmarks-{uuid.uuid4().hex[:8]}"
        self._runs = 0

    @contextmanager
    def running(self, subject: Subject, processes: int, warm: Sequence[str]) -> Iterator[Running]:
        """A subject, newly started, that has embedded some texts already.

        Args:
            subject: What is started.
            processes: Of the subject.
            warm: Those texts.

        Raises:
            HarnessError: It ended, or did not embed them in time.
        """
        self._runs += 1
        place = self._place()
        self._create((place.source, place.target, place.dead))
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, place.folder, ignore_errors=True)
            started = subject.at(place, processes)
            stack.enter_context(started)
            run = Running(subject, started, place, self._broker, self._loader, stack)
            if subject.grouped:
                self._await_members(place.name, processes, run)
            run.warm(warm)
            yield run

    def _place(self) -> Place:
        name = f"{self._name}-{self._runs}"
        return Place(
            self._broker.bootstrap_servers,
            name,
            source=f"documents-{name}",
            target=f"embeddings-{name}",
            dead=f"dead-{name}",
            folder=self._folder / name,
            port=free_port(),
        )

    def _create(self, topics: Iterable[str]) -> None:
        new = [
            NewTopic(
                name,
                num_partitions=PARTITIONS,
                replication_factor=1,
                config={"cleanup.policy": "compact"} if name.startswith("embeddings") else {},
            )
            for name in topics
        ]
        for made in self._admin.create_topics(new).values():
            made.result()

    def _await_members(self, group: str, members: int, run: Running) -> None:
        """Waits until so many processes share the partitions: the last one may start slowly."""
        deadline = time.monotonic() + _JOIN_S
        while time.monotonic() < deadline:
            run.check()
            # A coordinator that is not there yet is asked again.
            with contextlib.suppress(KafkaException):
                found = self._admin.describe_consumer_groups([group])[group].result()
                working = [one for one in found.members if one.assignment.topic_partitions]
                if found.state == ConsumerGroupState.STABLE and len(working) == members:
                    return
            time.sleep(0.2)
        raise HarnessError(f"group {group}: no {members} members after {_JOIN_S:.0f} s")


class Running:
    """A subject that runs, and what is seen of it.

    Args:
        subject: What it is.
        started: Its processes.
        place: Its topics and folder.
        broker: Its broker.
        loader: The load generator.
        stack: Ends what this starts.

    Attributes:
        place: Its topics and folder.
    """

    def __init__(
        self,
        subject: Subject,
        started: Started,
        place: Place,
        broker: Broker,
        loader: Remote,
        stack: ExitStack,
    ) -> None:
        self._subject = subject
        self._started = started
        self.place = place
        self._loader = loader
        self._broker_pid = broker.pid
        self._topic: TopicWatch | None = None
        self._table: TableWatch | None = None
        if subject.to_topic:
            self._topic = TopicWatch(
                broker.bootstrap_servers,
                place.target,
                PARTITIONS,
                once=subject.once,
                check=self.check,
            )
            stack.callback(self._topic.close)
        if subject.to_table:
            self._table = stack.enter_context(subject.watch(place, self.check))

    @property
    def metrics(self) -> str:
        """Where the first process of the flow serves its metrics."""
        return f"{HOST}:{self.place.port}"

    def warm(self, texts: Sequence[str]) -> None:
        """Waits until it has embedded some first texts.

        Raises:
            HarnessError: It ended, or did not in time.
        """
        documents = self._backlog(texts)
        self._loader.call("reveal")
        self._seen(len(documents), _TIMEOUT_S)
        self._in_table(documents)

    def drain(self, texts: Sequence[str]) -> Drain:
        """Lets the subject work off a backlog that appears at once.

        Raises:
            HarnessError: It ended, or did not in time.
        """
        documents = self._backlog(texts)
        time.sleep(_REST_S)
        pids = self._started.pids
        metered, clock = self._metered(), time.monotonic()
        cpu, broker_cpu, threads = cpu_of(pids), cpu_of([self._broker_pid]), threads_of(pids)
        began: float = self._loader.call("reveal")
        seen = self._seen(len(documents), _TIMEOUT_S)
        table_end = self._in_table(documents)
        cpu, broker_cpu = cpu_of(pids) - cpu, cpu_of([self._broker_pid]) - broker_cpu
        threads = growth(threads_of(pids), threads)
        took = time.monotonic() - clock
        counted = growth(self._metered(), metered)
        return Drain(
            len(texts),
            max(seen.values()) - began if seen else None,
            table_end - began if table_end else None,
            cpu,
            broker_cpu,
            peak_mib(pids),
            meters.shares(counted, took * len(pids)) if counted else {},
            threads,
        )

    def pace(self, texts: Sequence[str], rate: float, skip_s: float) -> Freshness:
        """Loads the subject steadily, and times each document.

        Args:
            texts: One document each.
            rate: Documents a second.
            skip_s: Seconds at the start that are not counted.

        Raises:
            HarnessError: It ended, or fell behind without end.
        """
        cpu, began = cpu_of(self._started.pids), time.monotonic()
        self._loader.ask("pace", self.place.source, PARTITIONS, texts, rate)
        seen = self._seen(len(texts), len(texts) / rate + _TIMEOUT_S)
        load: Paced = self._loader.answer()
        self._in_table(load.documents)
        cores = (cpu_of(self._started.pids) - cpu) / (time.monotonic() - began)
        counted = _after(load.documents, skip_s)
        table = self._table
        return Freshness(
            load,
            [(seen[one.key] - one.timestamp) * 1000 for one in counted] if seen else [],
            [(table.seen_at(one) - one.timestamp) * 1000 for one in counted] if table else [],
            cores,
        )

    def idle(self, seconds: float) -> float:
        """Cores that one of its processes uses while there is nothing to do, on average."""
        pids = self._started.pids
        cpu, began = cpu_of(pids), time.monotonic()
        time.sleep(seconds)
        self.check()
        return (cpu_of(pids) - cpu) / (time.monotonic() - began) / len(pids)

    def check(self) -> None:
        """Nothing, as long as the subject runs.

        Raises:
            HarnessError: It has ended.
        """
        if not self._started.alive:
            raise HarnessError(
                f"{self._subject.name}: ended with exit codes {self._started.exit_codes}: "
                f"{tail(self._started.log, 5)}"
            )

    def _backlog(self, texts: Sequence[str]) -> list[Written]:
        sent: list[Written] = self._loader.call("backlog", self.place.source, PARTITIONS, texts)
        return sent

    def _seen(self, docs: int, timeout_s: float) -> dict[bytes, float]:
        return self._topic.collect(docs, timeout_s) if self._topic else {}

    def _in_table(self, documents: Collection[Written]) -> float | None:
        return self._table.wait_for(documents, _TIMEOUT_S) if self._table else None

    def _metered(self) -> meters.Counts:
        if not self._subject.metered:
            return {}
        return meters.read(self.place.port, len(self._started.pids))


def _after(documents: Sequence[Written], skip_s: float) -> list[Written]:
    first = min(one.timestamp for one in documents)
    return [one for one in documents if one.timestamp >= first + skip_s]
