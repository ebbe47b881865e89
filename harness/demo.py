"""`make demo`: documents in, searchable out, the flow killed, nothing lost.

    python -m harness.demo [--data DIR]

`DEMO_DOCS` in the environment says how many documents. Everything is what a user would run: a
real Kafka, the `headrace` commands, the flow under `python -m bytewax.run`. What is shown of the
flow is not its own word: `Watch` reads the topic and the table beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

if __name__ == "__main__":
    # Ctrl-C ends it quietly also while it imports the rest.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from confluent_kafka import TopicPartition
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from clients.kafka import KafkaConfig
from harness import tether
from harness.audit import Given, Report, audit
from harness.broker import Broker
from harness.flow import Flow
from harness.process import HOST, ROOT, HarnessError, free_port, is_free, tail
from harness.texts import Docstring, docstrings
from harness.workload import Topics
from headrace.errors import HeadraceError, UsageError
from operators.records import Lane
from sinks.schema import TableSchema
from sinks.store import LANCE_ERRORS, TableStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType

    import lance
    from confluent_kafka import KafkaError, Message

__all__ = ["main"]

DOCUMENTS: Final = 2500
"""Enough to see it work, and few enough that two cores answer the first search within a minute."""

LEAST_DOCUMENTS: Final = 20
FRESH: Final = 100
FRESH_RATE: Final = 20.0
CHANGES_S: Final = 5.0
"""How long the changes are spread over, so that a kill falls between them."""

LEAST_CHANGES: Final = 200
PARTITIONS: Final = 4
WORKERS: Final = 2
KAFKA_PORT: Final = 9092
METRICS_PORT: Final = 9464
GROUP: Final = "headrace"
TABLE: Final = "documents"
INTERRUPTED: Final = 130

STUCK_S: Final = 120.0
GAP_S: Final = 1.0
LINE_S: Final = 3.0
LOOK_S: Final = 0.01
PIPED_WIDTH: Final = 110

FIRST_LINE: Final = "# Written by make demo, which empties this folder whenever it starts.\n"
SEARCHES: Final[Sequence[Sequence[str]]] = (
    ("parse command line arguments",),
    ("a file that disappears when it is closed",),
    ("run something in another thread", "--filter", "kind = 'class'"),
)


@dataclass(frozen=True)
class Place:
    """Where everything of the demo lies, and on which ports it listens.

    Attributes:
        folder: The folder.
        kafka_port: Of the broker.
        metrics_port: Of the flow's metrics.
    """

    folder: Path
    kafka_port: int
    metrics_port: int

    @property
    def servers(self) -> str:
        """The broker's address."""
        return f"{HOST}:{self.kafka_port}"

    @property
    def config(self) -> Path:
        """The settings of the flow and of all commands."""
        return self.folder / "headrace.toml"

    def shown(self, name: str = "") -> str:
        """A path in the folder, as one would type it in the repository's root."""
        return _typed(self.folder / name)

    def clear(self) -> bool:
        """Empty the folder of an earlier demo, and write the settings of this one.

        Returns:
            Whether there was one.

        Raises:
            HeadraceError: It holds other things, or a Kafka still runs on it.
        """
        found = self.folder.exists() and any(self.folder.iterdir())
        if found:
            self._check_ours()
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(self._settings())
        return found

    def _check_ours(self) -> None:
        if not self.config.exists() or not self.config.read_text().startswith(FIRST_LINE):
            raise UsageError(f"--data: {self.folder}: holds something else; name another folder")
        lock = self.folder / "kafka" / "data" / ".lock"  # Kafka's own
        if lock.exists():
            with lock.open("r+") as held:
                try:
                    fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise HarnessError(
                        f"--data: {self.folder}: a Kafka runs on it; stop it, or name another"
                    ) from None

    def _settings(self) -> str:
        columns = '{ package = "string", module = "string", kind = "string" }'
        return (
            f"{FIRST_LINE}"
            f'[kafka]\nbootstrap_servers = "{self.servers}"\n'
            f"[table]\nuri = {json.dumps(self.shown('lancedb'))}\ncolumns = {columns}\n"
            f'[metrics]\naddress = "{HOST}:{self.metrics_port}"\n'
        )


def gather(count: int) -> list[Docstring]:
    """Texts of the standard library and of installed packages, two to one where there are enough.

    They are spread over all of the library and as much of the packages as it takes, in an order
    that is always the same.
    """
    library: list[Docstring] = []
    packages: list[Docstring] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what compilers think of other people's code
        for found in docstrings():
            if found.text.encode(errors="ignore").decode() == found.text:
                ours = found.package in sys.stdlib_module_names
                (library if ours else packages).append(found)
            if len(packages) >= count:
                break
    share = min(len(library), max(count * 2 // 3, count - len(packages)))
    chosen = _spread(library, share) + _spread(packages, count - share)
    random.Random(1).shuffle(chosen)  # noqa: S311 - reproducible, not secret
    return chosen


def _spread(items: Sequence[Docstring], count: int) -> list[Docstring]:
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def metadata_of(found: Docstring) -> dict[str, object]:
    """The metadata of a docstring's document."""
    return {"package": found.package, "module": found.module, "kind": found.kind}


Record = tuple[bytes, bytes | None]
"""A key and a value."""


def record_of(found: Docstring, text: str | None = None) -> Record:
    """The record of a docstring."""
    value = {"text": text or found.text, "metadata": metadata_of(found)}
    return found.id.encode(), json.dumps(value).encode()


def changes(documents: Sequence[Docstring]) -> list[Record]:
    """Changes and deletions of a quarter of the documents.

    Half of them are new texts, a quarter is metadata alone, a quarter deletions; a deleted
    document that is drawn again comes back.
    """
    chooser = random.Random(2)  # noqa: S311 - reproducible, not secret
    touched = documents[: len(documents) // 4]
    dead: set[str] = set()
    made: list[Record] = []
    for revision in range(max(LEAST_CHANGES, len(touched))):
        found = chooser.choice(touched)
        draw = chooser.random()
        if draw >= 0.5 or found.id in dead:
            dead.discard(found.id)
            made.append(record_of(found, f"{found.text}\n\nRevision {revision}."))
        elif draw >= 0.25:
            value = {"metadata": {**metadata_of(found), "revision": revision}}
            made.append((found.id.encode(), json.dumps(value).encode()))
        else:
            dead.add(found.id)
            made.append((found.id.encode(), None))
    return made


def outcomes(given: Sequence[Given]) -> list[Given]:
    """What must become of the demo's records, all of which are good ones."""
    return [
        replace(record, expect="tombstone" if record.value is None else "embedding")
        for record in given
    ]


class _Interrupts:
    """Handles SIGINT and SIGTERM: raises KeyboardInterrupt, or does so a little later."""

    def __init__(self) -> None:
        self._held = False
        self._asked = False

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        """The handler."""
        self._asked = True
        if not self._held:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def later(self) -> Iterator[None]:
        """Hold the interrupt back until the end of the block."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._asked:
            raise KeyboardInterrupt


_interrupts = _Interrupts()


class _Background:
    """A job in a thread of its own, which looks at `_stopping`.

    The thread must have ended when the program does: librdkafka and Lance don't survive an
    interpreter that is being taken down.
    """

    def __init__(self, name: str) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start it; an interrupt meanwhile comes when it can be stopped."""
        with _interrupts.later():
            self._thread.start()

    def stop(self) -> None:
        """Stop it, if it runs."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        raise NotImplementedError


class Writer(_Background):
    """Writes records at an even rate.

    Args:
        kafka: The broker.
        topic: Where to.
        records: What.
        rate: Records a second.

    Attributes:
        sent: How many have been acknowledged.
    """

    def __init__(
        self, kafka: KafkaConfig, topic: str, records: Sequence[Record], rate: float
    ) -> None:
        super().__init__("demo-writer")
        self.sent = 0
        self._producer = kafka.producer()
        self._topic = topic
        self._records = records
        self._rate = rate
        self._failure: str | None = None

    def check(self) -> None:
        """Look whether all is well.

        Raises:
            HarnessError: A record was refused.
        """
        if self._failure is not None:
            raise HarnessError(f"topic {self._topic}: not written: {self._failure}")

    def _run(self) -> None:
        started = time.monotonic()
        for number, (key, value) in enumerate(self._records):
            if self._stopping.wait(max(0.0, started + number / self._rate - time.monotonic())):
                return
            self._producer.produce(self._topic, value, key, on_delivery=self._delivered)
            self._producer.poll(0)
        while self._producer.flush(0.2) and not self._stopping.is_set():
            pass

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            self.sent += 1
        else:
            self._failure = error.str()


@dataclass
class _LaneView:
    """What was seen of one partition: when its records were written, when the table had them."""

    written: list[float] = field(default_factory=list)
    looks: deque[tuple[int, float]] = field(default_factory=deque)
    measured: int = 0

    def waits(self) -> Iterator[float]:
        """How long each further record waited until it was in the table, in seconds."""
        while self.looks:
            end, at = self.looks[0]
            for written in self.written[self.measured : end]:
                yield max(0.0, at - written)
            self.measured = max(self.measured, min(end, len(self.written)))
            if self.measured < end:
                return  # the topic's reader is behind the table's
            self.looks.popleft()


@dataclass(frozen=True, slots=True)
class Counts:
    """How many records are on the source topic, settled on the topic, and in the table."""

    written: int
    topic: int
    table: int

    @property
    def lag(self) -> int:
        """Records that are not yet in both outputs."""
        return self.written - min(self.topic, self.table)

    def since(self, base: int) -> Counts:
        """The counts without the first records."""
        return Counts(*(max(0, n - base) for n in (self.written, self.topic, self.table)))


class Watch(_Background):
    """Reads the source topic and the table all the while, as a user's programs would.

    So freshness is what a reader sees: from the record's timestamp until a version of the table
    holds it, looked at every 10 ms. The flow's own histogram (`headrace_freshness_ms`) has steps
    that are too wide for a demo.

    Attributes:
        waits: How long each record waited, in the order in which the table took them, in seconds.
    """

    def __init__(self, kafka: KafkaConfig, topic: str, uri: str) -> None:
        super().__init__("demo-watch")
        self.waits: list[float] = []
        self._kafka = kafka
        self._topic = topic
        self._store = TableStore(uri, TABLE, TableSchema(1), "", "")
        self._lanes = [_LaneView() for _ in range(PARTITIONS)]
        self._asking = kafka.observer()

    def counts(self) -> Counts:
        """How far everything is."""
        committed = [
            self._kafka.committed(self._asking, self._topic, partition) or 0
            for partition in range(PARTITIONS)
        ]
        table = sum(lane.measured for lane in self._lanes)
        # Last, and at least what was settled: so no lag is ever below zero.
        written = sum(len(lane.written) for lane in self._lanes)
        return Counts(max(written, table, sum(committed)), sum(committed), table)

    def stop(self) -> None:
        """Stop it, and close what it reads by."""
        super().stop()
        self._asking.close()

    def _run(self) -> None:
        consumer = self._kafka.consumer()
        consumer.assign([TopicPartition(self._topic, p, 0) for p in range(PARTITIONS)])
        dataset: lance.LanceDataset | None = None
        while not self._stopping.is_set():
            for message in consumer.consume(1000, timeout=LOOK_S):
                if message.error() is None:
                    written_ms: int = message.timestamp()[1]
                    self._lanes[message.partition() or 0].written.append(written_ms / 1000)
            # The table is not made yet, or a version is just being tidied away: look again.
            with contextlib.suppress(HeadraceError, *LANCE_ERRORS):
                if dataset is None or dataset.latest_version != dataset.version:
                    dataset = self._look()
            for lane in self._lanes:
                self.waits.extend(lane.waits())
        consumer.close()

    def _look(self) -> lance.LanceDataset:
        dataset = self._store.open()
        progress, now = self._store.fence(dataset).progress, time.time()
        for partition, lane in enumerate(self._lanes):
            lane.looks.append((progress.get(Lane(self._topic, partition).key, 0), now))
        return dataset


class Ticker:
    """One line that changes, with a bar above it; without a terminal a line every few seconds."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._live = Live(console=console, auto_refresh=False)
        self._printed = time.monotonic()

    def show(self, line: str, done: int, *, last: bool = False) -> None:
        """Show how far it is."""
        if self._console.is_terminal:
            shown = Table.grid()
            shown.add_row(ProgressBar(self._total, done, width=60))
            shown.add_row(Text(line))
            self._live.update(shown, refresh=True)
        elif last or time.monotonic() - self._printed >= LINE_S:
            self._console.print(line, soft_wrap=True)
            self._printed = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()


class Demo:
    """The demo's steps, and all that they start.

    As a context manager it ends all of it on exit, in good order if nothing went wrong.

    Args:
        console: Where it is shown.
        place: Where it is kept.
        size: How many documents.
    """

    def __init__(self, console: Console, place: Place, size: int) -> None:
        self._console = console
        self._place = place
        self._size = size
        self._started = time.monotonic()
        self._topics = Topics()
        self._kafka = KafkaConfig(place.servers, GROUP)
        self._broker = Broker(folder=place.folder / "kafka", port=place.kafka_port)
        self._flow = Flow(
            self._settings(),
            workers=WORKERS,
            recovery=place.folder / "recovery",
            log=place.folder / "flow.log",
        )
        self._closing = contextlib.ExitStack()
        self._documents: list[Docstring] = []
        self._fresh: list[Docstring] = []

    def run(self) -> bool:
        """All steps.

        Returns:
            Whether nothing was lost or doubled.
        """
        self._prepare()
        self._start_kafka()
        self._start_flow()
        self._load()
        self._search()
        self._trickle()
        self._disturb()
        clean = self._count()
        if clean:
            self._go_on()
        return clean

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # it is ending already
        if kind is None:
            self._flow.terminate()
            self._closing.close()
            self._broker.stop()
        else:
            self._flow.kill()
            self._closing.close()
            self._broker.kill()
        self._console.show_cursor()

    def _prepare(self) -> None:
        self._say(
            f"Headrace: {self._size:,} documents go into a Kafka topic and come out searchable; "
            "then the flow is killed, and everything is counted.",
            style="bold",
        )
        cleared = self._place.clear()
        self._say(
            f"All of it is kept in {self._place.shown()}"
            f"{', emptied of the last demo' * cleared}. Ctrl-C ends it and leaves nothing running."
        )

    def _start_kafka(self) -> None:
        with self._step("1/6 Kafka, the model, and texts that every machine has"):
            self._show_command(*self._broker_command())
            self._broker.start()
            self._say(f"Apache Kafka runs on {self._place.servers}, process {self._broker.pid}.")
            self._headrace("model", "export")
            self._write_documents()

    def _write_documents(self) -> None:
        found = gather(self._size + FRESH)
        self._documents, self._fresh = found[:-FRESH], found[-FRESH:]
        lines = [
            json.dumps({"id": one.id, "text": one.text, "metadata": metadata_of(one)})
            for one in self._documents
        ]
        self._place.folder.joinpath("docs.ndjson").write_text("\n".join(lines) + "\n")
        fewer = f" (all there are, not {self._size:,})" * (len(lines) < self._size)
        self._size = len(lines)
        packages = len({one.package for one in self._documents})
        self._say(
            f"{self._size:,} docstrings{fewer} of {packages} packages: the standard library's and "
            "those installed here."
        )

    def _start_flow(self) -> None:
        with self._step(f"2/6 Topics, and the flow on {WORKERS} workers"):
            self._headrace("topics", "create", "--partitions", str(PARTITIONS))
            self._show_command(*self._flow_command())
            self._flow.start()
            self._say(f"Process {self._flow.pids[0]}, log in {self._place.shown('flow.log')}.")
        uri = str(self._place.folder / "lancedb")
        self._watch = Watch(self._kafka, self._topics.source, uri)
        self._closing.callback(self._watch.stop)
        self._watch.start()

    def _load(self) -> None:
        with self._step("3/6 Documents in"):
            self._headrace("load", self._place.shown("docs.ndjson"))
            rate = _Rate()
            size = self._size

            def line(counts: Counts) -> str:
                return (
                    f"on the topic {counts.topic:,}, in the table {counts.table:,} of {size:,}; "
                    f"{rate.of(counts.table):.0f} docs/s; lag {size - counts.table:,}; "
                    f"queued {_spans(self._watch.waits)}"
                )

            self._follow(lambda counts: counts.table == counts.topic == size, line, size)
            self._say(
                "They came all at once, so they queued. Freshness is step 5, when a document at a "
                "time comes."
            )

    def _search(self) -> None:
        with self._step("4/6 Searchable"):
            for number, (words, *options) in enumerate(SEARCHES):
                found = self._headrace("search", words, "-k", "3", *options, "--json", quiet=True)
                self._console.print(_found_table(json.loads(found), self._console.width))
                if not number:
                    seconds = time.monotonic() - self._started
                    self._say(f"First answer {seconds:.0f} s after the demo's start.\n")
            self._say("Each search is a process of its own, which first loads the model.")

    def _trickle(self) -> None:
        with self._step(f"5/6 Freshness: {FRESH} new documents, {FRESH_RATE:.0f} a second"):
            base, since = self._watch.counts().written, len(self._watch.waits)
            records = [record_of(found) for found in self._fresh]

            def line(counts: Counts) -> str:
                now = counts.since(base)
                waits = _spans(self._watch.waits[since:])
                return f"written {now.written}, searchable {now.table} of {FRESH}; {waits}"

            writer = self._write(records, FRESH_RATE)
            end = base + len(records)
            self._follow(
                lambda counts: counts.table == counts.topic == end, line, end, base, writer
            )
            waits = _spans(self._watch.waits[since:])
            self._say(f"From written to searchable: {waits}.", style="bold")

    def _disturb(self) -> None:
        records = changes(self._documents)
        heading = f"6/6 kill -9 in the middle of {len(records)} changes and deletions"
        with self._step(heading):
            base, since = self._watch.counts().written, len(self._watch.waits)
            end = base + len(records)

            def line(counts: Counts) -> str:
                now = counts.since(base)
                return (
                    f"changes written {now.written:,}, on the topic {now.topic:,}, in the table "
                    f"{now.table:,} of {len(records):,}"
                )

            writer = self._write(records, len(records) / CHANGES_S)
            half = base + len(records) // 2
            # Some are in the table, so that it is no start that is killed.
            self._follow(
                lambda counts: counts.written >= half and counts.table > base,
                line,
                end,
                base,
                writer,
            )
            killed = self._kill(base, len(records))
            self._flow.start()
            self._say(f"Started again as process {self._flow.pids[0]}.")
            self._follow(
                lambda counts: counts.table == counts.topic == end, line, end, base, writer
            )
            took, longest = time.monotonic() - killed, max(self._watch.waits[since:])
            self._say(
                f"Caught up {took:.1f} s after the kill; the change that waited longest waited "
                f"{_span(longest)}."
            )

    def _write(self, records: Sequence[Record], rate: float) -> Writer:
        writer = Writer(self._kafka, self._topics.source, records, rate)
        self._closing.callback(writer.stop)
        writer.start()
        return writer

    def _kill(self, base: int, of: int) -> float:
        """Kill the flow, if it can be done at a moment when only one output has something."""
        deadline = time.monotonic() + GAP_S
        while time.monotonic() < deadline:
            counts = self._watch.counts()
            if counts.topic != counts.table:
                break
        pid = self._flow.pids[0]
        code = self._flow.kill()[0]
        killed = time.monotonic()
        self._show_command("kill", "-9", str(pid))
        time.sleep(5 * LOOK_S)  # for the last look at the table
        now = self._watch.counts().since(base)
        self._say(
            f"Killed (exit code {code}) when {now.written:,} of {of:,} changes were written: "
            f"{now.topic:,} had their outcome on the topic, {now.table:,} were in the table.",
            style="bold",
        )
        self._say("A restart reads on from the older of the two; each takes only what it lacks.")
        return killed

    def _count(self) -> bool:
        with self._step("Counted: all records of all topics and all rows, read back"):
            self._flow.terminate()
            table = (str(self._place.folder / "lancedb"), TABLE)
            report = audit(self._place.servers, self._topics, GROUP, table, outcomes)
            self._show_report(report)
        return report.clean

    def _show_report(self, report: Report) -> None:
        kinds = ", ".join(f"{count:,} {kind}s" for kind, count in sorted(report.outcomes.items()))
        self._say(f"topic {self._topics.source}: {report.records:,} records")
        once, same = "; one for each record, in order", ", as a replay of the topic gives them"
        self._say(f"topic {self._topics.embeddings}: {kinds}{once * report.clean}")
        self._say(f"table {TABLE}: {report.table_rows:,} rows{same * report.clean}")
        if not report.clean:
            self._say(f"Not as it must be: {report}")
        told = {name: count for name, count in report.faults.items() if count}
        told = {"missing": 0, "duplicates": 0} | told
        line = ", ".join(f"{name} {count}" for name, count in told.items())
        self._say(line, style="bold green" if report.clean else "bold red")

    def _go_on(self) -> None:
        place = self._place
        took = time.monotonic() - self._started
        activate = Path(sys.executable).with_name("activate")
        lines = (
            "",
            f"It took {took:.0f} s. Kafka and the flow are stopped, {place.shown()} stays.",
            "To go on, first in each terminal, in the folder of the Makefile:",
            "",
            f"    . {_quoted(_typed(activate))}",
            f"    export HEADRACE_CONFIG={_quoted(place.shown('headrace.toml'))}",
            "",
            "Kafka and the flow, each in a terminal of its own:",
            "",
            f"    {' '.join(map(_quoted, self._broker_command()))}",
            f"    {' '.join(map(_quoted, self._flow_command()))}",
            "",
            "Then look around, and write:",
            "",
            '    headrace search "open a network connection" -k 5',
            """    echo '{"id": "note", "text": "bread is made of flour"}' | headrace load -""",
            '    headrace search "how to bake" -k 1',
            f"    headrace status --recovery {_quoted(place.shown('recovery'))}",
            f"    curl -s {HOST}:{place.metrics_port}/metrics | grep ^headrace_",
            "",
            "README.md says how to do this with a Kafka and documents of your own.",
        )
        for line in lines:
            self._say(line)

    def _follow(
        self,
        done: Callable[[Counts], bool],
        line: Callable[[Counts], str],
        total: int,
        base: int = 0,
        writer: Writer | None = None,
    ) -> None:
        """Show how far it is until it is done.

        Raises:
            HarnessError: The flow or the broker has ended, or nothing moves any more.
        """
        moved, before = time.monotonic(), Counts(0, 0, 0)
        with Ticker(self._console, total - base) as ticker:
            while True:
                counts = self._watch.counts()
                if counts != before:
                    moved, before = time.monotonic(), counts
                last = done(counts)
                ticker.show(line(counts), counts.table - base, last=last)
                if last:
                    return
                self._check(time.monotonic() - moved)
                if writer is not None:
                    writer.check()
                time.sleep(0.1)

    def _check(self, still_s: float) -> None:
        if not self._broker.alive:
            raise HarnessError(f"Kafka: ended; see {self._broker.log}: {tail(self._broker.log, 1)}")
        log = self._place.shown("flow.log")
        if not self._flow.alive:
            codes = self._flow.exit_codes
            raise HarnessError(f"flow: ended with {codes}; see {log}: {tail(self._flow.log, 1)}")
        if still_s > STUCK_S:
            raise HarnessError(f"flow: no progress for {STUCK_S:.0f} s; see {log}")

    def _headrace(self, *arguments: str, quiet: bool = False) -> str:
        """Run a command as a user does; returns what it printed if that is not to be shown.

        It has a session of its own, so that Ctrl-C reaches the demo alone, which ends it.

        Raises:
            HarnessError: It failed; it has said why.
        """
        self._show_command("headrace", *arguments)
        program = str(Path(sys.executable).with_name("headrace"))
        tied = (sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), program)
        process = subprocess.Popen(
            (*tied, *arguments),
            cwd=ROOT,
            env=_environment() | self._settings(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if quiet else None,
            text=True,
            start_new_session=True,
        )
        try:
            printed, _ = process.communicate()
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            name = " ".join(("headrace", *arguments[:2]))
            raise HarnessError(f"{name}: ended with exit code {process.returncode}")
        return printed or ""

    def _settings(self) -> dict[str, str]:
        """The settings of all that runs: the demo's, and the user's of the model alone."""
        kept = {k: v for k, v in os.environ.items() if k.startswith("HEADRACE_MODEL__")}
        return {**kept, "HEADRACE_CONFIG": str(self._place.config)}

    def _broker_command(self) -> tuple[str, ...]:
        port = str(self._place.kafka_port)
        folder = ("--folder", self._place.shown("kafka"))
        return ("python", "-m", "harness.broker", "--port", port, *folder)

    def _flow_command(self) -> tuple[str, ...]:
        store = ("-s", "10", "-r", self._place.shown("recovery"), "-b", "0")
        return ("python", "-m", "bytewax.run", "flows.embed", "-w", str(WORKERS), *store)

    @contextlib.contextmanager
    def _step(self, heading: str) -> Iterator[None]:
        started = time.monotonic()
        self._say("")
        self._say(heading, style="bold cyan")
        yield
        self._say(f"{time.monotonic() - started:.1f} s", style="dim")

    def _show_command(self, *command: str) -> None:
        self._say(f"$ {' '.join(map(_quoted, command))}", style="yellow")

    def _say(self, line: str, style: str | None = None) -> None:
        self._console.print(line, style=style, soft_wrap=not self._console.is_terminal)


class _Rate:
    """Documents a second since the first came, which the flow took its time to start for."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def of(self, count: int) -> float:
        """The rate, now that there are so many."""
        now = time.monotonic()
        if self._first is None:
            if count:
                self._first = (count, now)
            return 0.0
        before, at = self._first
        return (count - before) / max(now - at, 1e-3)


def _typed(path: Path) -> str:
    """A path as one would type it in the repository's root."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def _environment() -> dict[str, str]:
    """The environment without settings, which may name somebody's real Kafka."""
    ours = ("HEADRACE_", "BYTEWAX_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def _quoted(word: str) -> str:
    """A word as one types it in a shell: in double quotes if that does."""
    if shlex.quote(word) == word or set(word) & set('"$`\\!'):
        return shlex.quote(word)
    return f'"{word}"'


def _found_table(found: Sequence[Mapping[str, Any]], width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("score", "id", "text"):
        table.add_column(name)
    room = max(20, width - 10)
    ids = [_cut(item["id"], room // 2) for item in found]
    left = room - max(map(len, ids), default=0)
    for identity, item in zip(ids, found, strict=True):
        first = _cut(item["text"].strip().splitlines()[0], left)
        table.add_row(f"{item['score']:.3f}", Text(identity), Text(first))
    return table


def _cut(text: str, length: int) -> str:
    """A text made to fit, without what could steer a terminal."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return shown if len(shown) <= length else f"{shown[: length - 1]}…"


def _spans(waits: Sequence[float]) -> str:
    if not waits:
        return "p50 -, p99 -"
    ordered = sorted(waits)
    p50, p99 = (ordered[round(share * (len(ordered) - 1))] for share in (0.5, 0.99))
    return f"p50 {_span(p50)}, p99 {_span(p99)}"


def _span(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _size(given: str) -> int:
    with contextlib.suppress(ValueError):
        if int(given) >= LEAST_DOCUMENTS:
            return int(given)
    raise UsageError(f"DEMO_DOCS: {given!r}: must be a whole number from {LEAST_DOCUMENTS} on")


def _free(preferred: int) -> int:
    return preferred if is_free(preferred) else free_port()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo.

    Returns:
        The exit code: 0 nothing lost or doubled, 1 failed, 2 wrong usage, 130 interrupted.
    """
    parser = argparse.ArgumentParser(prog="python -m harness.demo", description="Shows Headrace.")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "demo", help="where it works")
    given = parser.parse_args(arguments)
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    with _interruptible():
        return _run(console, given.data)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGINT and SIGTERM interrupt; afterwards both mean again what they meant before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, _interrupts)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(console: Console, data: Path) -> int:
    try:
        size = _size(os.environ.get("DEMO_DOCS", str(DOCUMENTS)))
        place = Place(data.resolve(), _free(KAFKA_PORT), _free(METRICS_PORT))
        with Demo(console, place, size) as demo:
            return 0 if demo.run() else 1
    except HeadraceError as error:
        sys.stderr.write(f"demo: {' '.join(str(error).split())}\n")
        return error.exit_code
    except KeyboardInterrupt:
        console.print("\nStopped; nothing is left running.")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
