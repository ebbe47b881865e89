"""Flows with everything on, each on topics and a table of its own, and what they use."""

from __future__ import annotations

import contextlib
import shutil
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks.watch import TableWatch, TopicWatch, ends_of
from harness.flow import Flow
from harness.process import HOST, HarnessError, free_port, tail

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from benchmarks.load import Paced
    from benchmarks.remote import Remote
    from benchmarks.watch import Seen
    from harness.broker import Broker

__all__ = ["PARTITIONS", "Drain", "Freshness", "Rig", "Running", "cpu_of", "passed_on"]

PARTITIONS: Final = 2
_PASSED_ON: Final = ("HEADRACE_MODEL__", "HEADRACE_BATCH__")
_TIMEOUT_S: Final = 300.0
_REST_S: Final = 0.3


@dataclass(frozen=True, slots=True)
class Drain:
    """A backlog, from the moment that readers could see it.

    Attributes:
        docs: Documents.
        topic_s: Seconds until a consumer of the embeddings topic had seen the last.
        table_s: Seconds until the table was seen to hold them all.
        cpu_s: CPU-seconds of all of the flow's processes, until both.
        broker_cpu_s: CPU-seconds of the broker, until both.
    """

    docs: int
    topic_s: float
    table_s: float
    cpu_s: float
    broker_cpu_s: float


@dataclass(frozen=True, slots=True)
class Freshness:
    """A steady load, after its first seconds.

    Attributes:
        load: What the generator did.
        topic_ms: Of each document, timestamp to seen in the embeddings topic.
        table_ms: Of each document, timestamp to seen in the table.
        cores: CPU-seconds of the flow in a second.
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
    """A broker, a load generator and a folder, in which flows are started one at a time.

    Args:
        broker: Runs.
        loader: A `benchmarks.load.Generator`.
        settings: Of every flow.
        folder: Where tables, recovery stores and logs go.
    """

    def __init__(
        self, broker: Broker, loader: Remote, settings: Mapping[str, str], folder: Path
    ) -> None:
        self._broker = broker
        self._loader = loader
        self._settings = dict(settings)
        self._folder = folder
        self._runs = 0

    @contextmanager
    def running(self, processes: int, warm: Sequence[str]) -> Iterator[Running]:
        """A new flow that has embedded some texts already.

        Args:
            processes: Of the flow.
            warm: Those texts.

        Raises:
            HarnessError: It ended, or did not embed them in time.
        """
        self._runs += 1
        folder = self._folder / f"run-{self._runs}"
        topics = {name: f"{name}-{self._runs}" for name in ("documents", "embeddings", "dead")}
        self._create(topics.values())
        flow = Flow(
            {**self._settings, **self._own(topics, folder)},
            processes=processes,
            recovery=folder / "recovery",
            log=folder / "flow.log",
        )
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(flow)
            run = Running(flow, self._broker, self._loader, topics, folder, stack)
            run.drain(warm)
            yield run

    def _create(self, topics: Iterable[str]) -> None:
        admin = AdminClient({"bootstrap.servers": self._broker.bootstrap_servers, "log_level": 3})
        new = [
            NewTopic(
                name,
                num_partitions=PARTITIONS,
                replication_factor=1,
                config={"cleanup.policy": "compact"} if name.startswith("embeddings") else {},
            )
            for name in topics
        ]
        for made in admin.create_topics(new).values():
            made.result()

    def _own(self, topics: Mapping[str, str], folder: Path) -> dict[str, str]:
        return {
            "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": self._broker.bootstrap_servers,
            "HEADRACE_KAFKA__APPLICATION_ID": f"benchmarks-{self._runs}",
            "HEADRACE_SOURCE__TOPICS": topics["documents"],
            "HEADRACE_EMBEDDINGS__TOPIC": topics["embeddings"],
            "HEADRACE_DEAD_LETTERS__TOPIC": topics["dead"],
            "HEADRACE_TABLE__URI": str(folder / "lancedb"),
            "HEADRACE_METRICS__ADDRESS": f"{HOST}:{free_port()}",
        }


class Running:
    """A flow that runs, and what is seen of it.

    Args:
        flow: Started.
        broker: Its broker.
        loader: The load generator.
        topics: Its topics, by what they hold.
        folder: Its folder.
        stack: Ends what this starts.
    """

    def __init__(
        self,
        flow: Flow,
        broker: Broker,
        loader: Remote,
        topics: Mapping[str, str],
        folder: Path,
        stack: ExitStack,
    ) -> None:
        self._flow = flow
        self._loader = loader
        self._source = topics["documents"]
        self._broker_pid = broker.pid
        self._topic = TopicWatch(
            broker.bootstrap_servers, topics["embeddings"], PARTITIONS, self._check
        )
        stack.callback(self._topic.close)
        table = TableWatch(folder / "lancedb" / "documents.lance", self._check)
        self._table = stack.enter_context(table)

    def drain(self, texts: Sequence[str]) -> Drain:
        """Lets the flow work off a backlog that appears at once.

        Raises:
            HarnessError: It ended, or did not in time.
        """
        self._loader.call("backlog", self._source, PARTITIONS, texts)
        time.sleep(_REST_S)
        cpu, broker_cpu = self._cpu()
        began: float = self._loader.call("reveal")
        seen = self._topic.collect(len(texts), _TIMEOUT_S)
        topic_end = max(one.at for one in seen)
        table_end = self._table.wait_for(ends_of(seen), _TIMEOUT_S)
        after, broker_after = self._cpu()
        return Drain(
            len(texts), topic_end - began, table_end - began, after - cpu, broker_after - broker_cpu
        )

    def pace(self, texts: Sequence[str], rate: float, skip_s: float) -> Freshness:
        """Loads the flow steadily, and times each document.

        Args:
            texts: One document each.
            rate: Documents a second.
            skip_s: Seconds at the start that are not counted.

        Raises:
            HarnessError: It ended, or fell behind without end.
        """
        (cpu, _), began = self._cpu(), time.monotonic()
        self._loader.ask("pace", self._source, PARTITIONS, texts, rate)
        seen = self._topic.collect(len(texts), len(texts) / rate + _TIMEOUT_S)
        self._table.wait_for(ends_of(seen), _TIMEOUT_S)
        (after, _), ended = self._cpu(), time.monotonic()
        load: Paced = self._loader.answer()
        counted = _after(seen, skip_s)
        return Freshness(
            load,
            [(one.at - one.event_time) * 1000 for one in counted],
            [(self._table.seen_at(one) - one.event_time) * 1000 for one in counted],
            (after - cpu) / (ended - began),
        )

    def _cpu(self) -> tuple[float, float]:
        """CPU-seconds so far of the flow's processes and of the broker."""
        return sum(cpu_of(pid) for pid in self._flow.pids), cpu_of(self._broker_pid)

    def _check(self) -> None:
        if not self._flow.alive:
            raise HarnessError(
                f"flow: ended with exit codes {self._flow.exit_codes}: {tail(self._flow.log, 5)}"
            )


def _after(seen: Sequence[Seen], skip_s: float) -> list[Seen]:
    first = min(one.event_time for one in seen)
    return [one for one in seen if one.event_time >= first + skip_s]


def cpu_of(pid: int) -> float:
    """CPU-seconds of a process and of its children, ended ones that it waited for included."""
    process = psutil.Process(pid)
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total
