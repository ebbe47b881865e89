"""Disturbs a real flow while it works through a workload, then counts.

Every scenario ends with an audit of the topics and the table, and with what a `read_committed`
consumer saw that ran all the while.
"""

from __future__ import annotations

import random
import shutil
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

import structlog

from harness.audit import Reader, Report, audit, committed_offsets
from harness.flow import Flow, Supervised
from harness.process import ROOT, HarnessError
from harness.workload import TENANTS, Topics, Workload, make_topics, produce
from operators.routing import directory_name
from sinks.schema import TableSchema
from sinks.store import TableStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from harness.audit import Given
    from harness.broker import Broker
    from harness.cluster import Cluster

__all__ = ["Trial", "TrialResult"]

log = structlog.get_logger(__name__)

PROGRESS_S: Final = 120.0
"""How long a flow may take to commit something after a disturbance, in seconds."""


@dataclass
class TrialResult:
    """What a trial counted.

    Attributes:
        report: The audit's.
        reader_faults: What the consumer that ran all the while saw and should not have.
        disturbances: What was done, in order.
        seconds: From the first start to the end of the audit.
    """

    report: Report
    reader_faults: list[str]
    disturbances: list[str]
    seconds: float

    @property
    def clean(self) -> bool:
        """Whether nothing was lost, doubled, out of order or wrong."""
        return self.report.clean and not self.reader_faults

    def __str__(self) -> str:
        seen = f"live reader saw {len(self.reader_faults)} faults"
        done = f"{len(self.disturbances)} disturbances in {self.seconds:.0f} s"
        return f"{self.report}; {seen}; {done}"


@dataclass
class Trial:
    """One flow under faults, on topics and a table of its own.

    As a context manager it makes the topics and starts flow, writer and reader on entry, and
    stops them on exit.

    Attributes:
        broker: A running broker, or several.
        folder: An empty folder for the table, the recovery store and the logs.
        texts: What the documents say.
        records: How many records are written.
        keys: How many documents they are of.
        partitions: Of the source topic.
        workers: Worker threads of the flow.
        processes: Processes of the flow.
        seed: Of all random choices.
        rate: Records a second that are written; as fast as possible unless given.
        settings: Further settings of the flow.
        module: The flow's module.
        uri: Of the table; a folder of the trial's unless given.
        minutes: How long a scenario takes whose end is not that of its records.
        source: The source topic; one named for the trial unless given.
        older: The commit whose flow takes turns with this one's, where versions do.
        code: The checkout whose flow runs.
        tenants: How many tables the documents are in; 0 where there is one.
    """

    broker: Broker | Cluster
    folder: Path
    texts: Sequence[str]
    records: int
    keys: int = 500
    partitions: int = 4
    workers: int = 1
    processes: int = 1
    seed: int = 1
    rate: float | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    module: str = "flows.embed"
    uri: str = ""
    minutes: float = 60.0
    source: str = ""
    older: str = "HEAD^"
    code: Path = ROOT
    tenants: int = 0

    def __post_init__(self) -> None:
        self.uri = self.uri or str(self.folder / "lancedb")
        self._random = random.Random(self.seed)  # noqa: S311 - reproducible, not secret
        self.name = f"trial-{self.folder.name}"
        source = self.source or self.name
        self.topics = Topics(source, f"{self.name}.embeddings", f"{self.name}.dead-letters")
        self.disturbances: list[str] = []
        self._written = threading.Event()
        self._failed: list[BaseException] = []
        self._reader = Reader(self.broker.bootstrap_servers, self.topics)
        self._writer = threading.Thread(target=self._write, name="writer", daemon=True)
        self._started = 0.0

    @property
    def environment(self) -> dict[str, str]:
        """The flow's settings."""
        servers = self.broker.bootstrap_servers
        table = {"HEADRACE_TABLE__NAME": self.table}
        return self.topics.environment(servers, self.name, self.uri) | table | dict(self.settings)

    @property
    def table(self) -> str:
        """What the table is called, or what makes the names of several."""
        return TENANTS if self.tenants else "documents"

    @property
    def recovery(self) -> Path:
        """The recovery folder."""
        return self.folder / "recovery"

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        make_topics(self.broker.bootstrap_servers, self.topics, self.partitions)
        self._reader.__enter__()
        self._writer.start()
        self.flow = self._supervised().start()
        return self

    def __exit__(self, *_: object) -> None:
        self.flow.stop()
        self._reader.__exit__()

    def make_flow(self) -> Flow:
        """Another copy of the flow as it is now; not started."""
        flow = Flow(
            self.environment,
            workers=self.workers,
            processes=self.processes,
            recovery=self.recovery,
            snapshot_s=1,  # so that there are some to be killed in
            log=self.folder / "logs" / "flow.log",
            flow=self.module,
        )
        flow.code = self.code
        return flow

    def expected(self, given: Sequence[Given]) -> Sequence[Given]:
        """What must become of the source records: as they say themselves."""
        return given

    def kill_at_random(self) -> None:
        """Kill all processes, or one of several, at a random moment after progress was made."""
        self.await_progress()
        time.sleep(self._random.uniform(0.0, 0.5))
        several = self.processes > 1
        one = self._random.randrange(self.processes) if several else None
        self.flow.kill(one)
        self.note(f"kill -9 {'all' if one is None else one}")

    def kill_writer(self) -> None:
        """Kill the process that writes the table, and no other, at a random moment."""
        self.await_progress()
        time.sleep(self._random.uniform(0.0, 0.5))
        self._wait(self.flow.kill_writer, PROGRESS_S, "writer")
        self.note("kill -9 the table's writer")

    def kill_between_commits(self, ahead: str, within_s: float = 5.0) -> None:
        """Kill when one sink has committed what the other has not.

        Args:
            ahead: `table` or `topic`.
            within_s: How long to wait for such a moment; then it is killed all the same.
        """
        self.await_progress()
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            gap = self._table_total() - self.committed()
            if (gap > 0) if ahead == "table" else (gap < 0):
                break
        self.flow.kill()
        self.note(f"kill -9 with {ahead} ahead by {abs(gap)}")

    def end(self) -> None:
        """End all processes in good order, by SIGTERM, as an upgrade does; they start again."""
        self.await_progress()
        started = time.monotonic()
        codes = self.flow.end()
        self.note(f"SIGTERM, ended with {codes} after {time.monotonic() - started:.1f} s")

    def lose_recovery(self) -> None:
        """Kill the flow and delete the recovery folder before it starts again."""
        self.await_progress()
        self.flow.stop(grace_s=0)
        shutil.rmtree(self.recovery)
        self._restart("recovery folder lost")

    def rescale(self, *, workers: int | None = None, processes: int | None = None) -> None:
        """Kill the flow and go on with another number of workers or processes."""
        self.await_progress()
        self.flow.stop(grace_s=0)
        self.workers = workers or self.workers
        self.processes = processes or self.processes
        self._restart(f"{self.processes} processes of {self.workers} workers")

    def change_version(self, code: Path, *, kill: bool = False) -> None:
        """End the flow, by SIGTERM or -9, and go on with that of another checkout."""
        self.await_progress()
        codes = self.flow.stop(grace_s=0 if kill else 60)
        self.code = code
        self._restart(f"ended with {codes}; goes on with the code in {code.name}")

    def kill_broker(self, away_s: float = 2.0) -> None:
        """Kill the broker with -9 and start it again on the same data."""
        self.await_progress()
        self.broker.kill()
        time.sleep(away_s)
        self.broker.restart()
        self.note(f"broker killed, away {away_s:.0f} s")

    def start_second_copy(self, timeout_s: float = 60.0) -> list[int]:
        """Start a second copy by mistake; returns the exit codes of the first.

        Raises:
            HarnessError: The first did not end.
        """
        self.await_progress()
        first = self.flow
        first.leave()
        # Bytewax's own store must not be shared by two copies; one started by mistake has its own.
        second = self.make_flow()
        second.recovery = self.folder / f"recovery-{len(self.disturbances)}"
        self.flow = Supervised(second).start()
        codes = first.flow.wait(timeout_s)
        self.note(f"second copy; the first ended with {codes}")
        return codes

    def finish(self, timeout_s: float = 600.0) -> TrialResult:
        """Wait until everything is written and committed, stop, and count.

        Raises:
            HarnessError: It does not end in time.
        """
        self.drain(timeout_s)
        self.flow.stop()
        report = audit(
            self.broker.bootstrap_servers,
            self.topics,
            self.name,
            (self.uri, self.table),
            self.expected,
        )
        seconds = time.monotonic() - self._started
        return TrialResult(report, self._reader.faults, self.disturbances, seconds)

    def drain(self, timeout_s: float = 600.0) -> None:
        """Wait until everything is written and committed.

        Raises:
            HarnessError: It is not in time.
        """
        self._wait(lambda: self._written.is_set() and not self.behind(), timeout_s, "the end")

    def await_progress(self) -> None:
        """Wait until the flow has committed more than it had when this was called.

        Raises:
            HarnessError: It does not; the flow's log is in the message.
        """
        before = self.committed(), self._table_total()
        self._wait(
            lambda: (
                (self.committed() > before[0] and self._table_total() > before[1])
                or (self._written.is_set() and not self.behind())
            ),
            PROGRESS_S,
            f"progress beyond {before}",
        )

    def note(self, what: str) -> None:
        """Add to the disturbances what was done, and how far the flow is."""
        done = f"{what} (topic at {self.committed()}, table at {self._table_total()})"
        self.disturbances.append(done)
        log.info("disturbed", what=done, number=len(self.disturbances))

    def await_log(self, words: str, timeout_s: float = PROGRESS_S) -> None:
        """Wait until the flow has logged some words.

        Raises:
            HarnessError: It does not.
        """
        self._wait(lambda: words in self.flow.log_text(), timeout_s, f"words {words!r} in the log")

    def committed(self) -> int:
        """How many records the topic sink has committed."""
        return sum(committed for committed, _ in self._offsets().values())

    def behind(self) -> int:
        """How many records are written and not yet committed by both sinks."""
        offsets = self._offsets().values()
        written, committed = sum(end for _, end in offsets), sum(done for done, _ in offsets)
        return (written - committed) + max(0, committed - self._table_total())

    def _restart(self, what: str) -> None:
        self.flow = self._supervised().start()
        self.note(what)

    def _supervised(self) -> Supervised:
        return Supervised(self.make_flow())

    def pace(self, started: float, done: int) -> None:
        """Wait until so many records may be written.

        Args:
            started: When the first was, by `time.monotonic`.
            done: How many are.
        """
        if self.rate is not None:
            time.sleep(max(0.0, started + done / self.rate - time.monotonic()))

    def _write(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self._failed.append(error)
        self._written.set()

    def _work(self) -> None:
        """Write all records."""
        started = time.monotonic()
        produce(
            self.broker.bootstrap_servers,
            self.topics.source,
            Workload(self.texts, self.keys, self.seed, self.tenants),
            self.records,
            abort_share=0.3,
            on_chunk=lambda done: self.pace(started, done),
        )

    def _wait(self, done: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            if self._failed:
                raise self._failed[0]
            if time.monotonic() > deadline:
                log_tail = self.flow.log_text()[-4000:]
                raise HarnessError(f"no {what} in {timeout_s:.0f} s; the flow's log:\n{log_tail}")
            time.sleep(0.1)

    def _offsets(self) -> dict[tuple[str, int], tuple[int, int]]:
        return committed_offsets(self.broker.bootstrap_servers, self.topics, self.name)

    def _table_total(self) -> int:
        name = directory_name(self.table) if self.tenants else self.table
        store = TableStore(self.uri, name, TableSchema(1), "", "")
        if not store.exists():
            return 0
        return sum(store.fence(store.open()).progress.values())
