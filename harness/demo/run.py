"""The demo's steps, and all that they start."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from typing import TYPE_CHECKING, Final, Self

from clients.kafka import KafkaConfig
from harness.audit import audit
from harness.broker import Broker
from harness.demo.commands import WORKERS, Commands
from harness.demo.documents import Gathering, changes, metadata_of, outcomes, record_of
from harness.demo.ending import show_count, show_way_on
from harness.demo.follow import Follower
from harness.demo.interrupts import ignore_interrupts
from harness.demo.keep import RATE, keep_open
from harness.demo.place import TABLE
from harness.demo.shown import Rate, span, spans
from harness.demo.watch import LOOK_S, Watch
from harness.demo.writer import Writer
from harness.flow import Flow
from harness.workload import Topics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.demo.documents import Record
    from harness.demo.place import Place
    from harness.demo.shown import Screen
    from harness.demo.watch import Counts
    from harness.texts import Docstring

__all__ = ["SEARCHES", "Demo"]

FRESH: Final = 100
FRESH_RATE: Final = 20.0
CHANGES_S: Final = 5.0
"""How long the changes are spread over, so that a kill falls between them."""

FIRST: Final = 100
"""How many documents are in the table when it is searched first."""

PARTITIONS: Final = 4
GROUP: Final = "headrace"
GAP_S: Final = 1.0

SEARCHES: Final[Sequence[Sequence[str]]] = (
    ("parse command line arguments",),
    ("a file that disappears when it is closed",),
    ("run something in another thread", "--filter", "kind = 'class'"),
)


class Demo:
    """The demo's steps, and all that they start.

    As a context manager it ends all of it on exit, in good order if nothing went wrong.

    Args:
        screen: Where it is shown.
        place: Where it is kept.
        size: How many documents.
        kept: Whether it ends with the page open.
    """

    def __init__(self, screen: Screen, place: Place, size: int, *, kept: bool = False) -> None:
        self._kept = kept
        self._screen = screen
        self._place = place
        self._size = size
        self._started = time.monotonic()
        self._commands = Commands(screen, place)
        self._topics = Topics()
        self._kafka = KafkaConfig(place.servers, GROUP)
        self._broker = Broker(folder=place.folder / "kafka", port=place.kafka_port)
        self._flow = Flow(
            self._commands.settings,
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
            took_s = time.monotonic() - self._started
            if self._kept:
                self._keep()
            show_way_on(self._screen, self._place, self._commands, took_s)
        return clean

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        ignore_interrupts()  # it is ending already
        if kind is None:
            self._flow.terminate()
            self._closing.close()
            self._broker.stop()
        else:
            self._flow.kill()
            self._closing.close()
            self._broker.kill()
        self._screen.close()

    def _prepare(self) -> None:
        self._screen.say(
            f"Headrace: {self._size:,} documents go into a Kafka topic and come out searchable; "
            "then the flow is killed, and everything is counted.",
            style="bold",
        )
        cleared = self._place.clear()
        self._screen.say(
            f"All of it is kept in {self._place.shown()}"
            f"{', emptied of the last demo' * cleared}. Ctrl-C ends it and leaves nothing running."
        )

    def _start_kafka(self) -> None:
        with self._screen.step("1/6 Kafka, the model, and texts that every machine has"):
            gathering = Gathering(self._size + FRESH)
            gathering.start()
            self._screen.command(*self._commands.broker)
            self._broker.start()
            self._screen.say(
                f"Apache Kafka runs on {self._place.servers}, process {self._broker.pid}."
            )
            self._commands.headrace("model", "export")
            self._write_documents(gathering.result())

    def _write_documents(self, found: list[Docstring]) -> None:
        self._documents, self._fresh = found[:-FRESH], found[-FRESH:]
        lines = [
            json.dumps({"id": one.id, "text": one.text, "metadata": metadata_of(one)})
            for one in self._documents
        ]
        self._place.folder.joinpath("docs.ndjson").write_text("\n".join(lines) + "\n")
        fewer = f" (all there are, not {self._size:,})" * (len(lines) < self._size)
        self._size = len(lines)
        packages = len({one.package for one in self._documents})
        self._screen.say(
            f"{self._size:,} docstrings{fewer} of {packages} packages: the standard library's and "
            "those installed here."
        )

    def _start_flow(self) -> None:
        with self._screen.step(f"2/6 Topics, and the flow on {WORKERS} workers"):
            self._commands.headrace("topics", "create", "--partitions", str(PARTITIONS))
            self._screen.command(*self._commands.flow)
            self._flow.start()
            self._screen.say(
                f"Process {self._flow.pids[0]}, log in {self._place.shown('flow.log')}."
            )
        self._watch = Watch(self._kafka, self._topics.source, PARTITIONS, self._place.tables)
        self._closing.callback(self._watch.stop)
        self._watch.start()
        self._follower = Follower(self._screen, self._place, self._broker, self._flow, self._watch)

    def _load(self) -> None:
        with self._screen.step("3/6 Documents in"):
            self._commands.headrace("load", self._place.shown("docs.ndjson"))
            rate = Rate()
            size = self._size

            def line(counts: Counts) -> str:
                return (
                    f"on the topic {counts.topic:,}, in the table {counts.table:,} of {size:,}; "
                    f"{rate.of(counts.table):.0f} docs/s; lag {size - counts.table:,}; "
                    f"queued {spans(self._watch.waits)}"
                )

            self._follower.until(lambda counts: counts.table >= min(FIRST, size), line, size)
            self._screen.say("What is in the table can be found, while the rest is on its way:")
            self._answer(*SEARCHES[0])
            seconds = time.monotonic() - self._started
            self._screen.say(f"First answer {seconds:.0f} s after the demo's start.\n")
            self._follower.until(lambda counts: counts.table == counts.topic == size, line, size)
            self._screen.say(
                "They came all at once, so they queued. Freshness is step 5, when a document at a "
                "time comes."
            )

    def _search(self) -> None:
        with self._screen.step("4/6 Searchable"):
            for words, *options in SEARCHES:
                self._answer(words, *options)
            self._screen.say("Each search is a process of its own, which first loads the model.")

    def _answer(self, words: str, *options: str) -> None:
        found = self._commands.headrace("search", words, "-k", "3", *options, "--json", quiet=True)
        self._screen.found(json.loads(found))

    def _trickle(self) -> None:
        with self._screen.step(f"5/6 Freshness: {FRESH} new documents, {FRESH_RATE:.0f} a second"):
            base, since = self._watch.counts().written, len(self._watch.waits)
            records = [record_of(found) for found in self._fresh]

            def line(counts: Counts) -> str:
                now = counts.since(base)
                waits = spans(self._watch.waits[since:])
                return f"written {now.written}, searchable {now.table} of {FRESH}; {waits}"

            writer = self._write(records, FRESH_RATE)
            end = base + len(records)
            self._follower.until(
                lambda counts: counts.table == counts.topic == end, line, end, base, writer
            )
            waits = spans(self._watch.waits[since:])
            self._screen.say(f"From written to searchable: {waits}.", style="bold")

    def _disturb(self) -> None:
        records = changes(self._documents)
        heading = f"6/6 kill -9 in the middle of {len(records)} changes and deletions"
        with self._screen.step(heading):
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
            self._follower.until(
                lambda counts: counts.written >= half and counts.table > base,
                line,
                end,
                base,
                writer,
            )
            killed = self._kill(base, len(records))
            self._flow.start()
            self._screen.say(f"Started again as process {self._flow.pids[0]}.")
            self._follower.until(
                lambda counts: counts.table == counts.topic == end, line, end, base, writer
            )
            took, longest = time.monotonic() - killed, max(self._watch.waits[since:])
            self._screen.say(
                f"Caught up {took:.1f} s after the kill; the change that waited longest waited "
                f"{span(longest)}."
            )

    def _keep(self) -> None:
        records = itertools.cycle([record_of(found) for found in self._documents])
        writer = Writer(self._kafka, self._topics.source, records, RATE)
        self._closing.callback(writer.stop)
        keep_open(self._screen, self._place, self._commands, self._broker, self._flow, writer)

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
        self._screen.command("kill", "-9", str(pid))
        time.sleep(5 * LOOK_S)  # for the last look at the table
        now = self._watch.counts().since(base)
        self._screen.say(
            f"Killed (exit code {code}) when {now.written:,} of {of:,} changes were written: "
            f"{now.topic:,} had their outcome on the topic, {now.table:,} were in the table.",
            style="bold",
        )
        self._screen.say(
            "A restart reads on from the older of the two; each takes only what it lacks."
        )
        return killed

    def _count(self) -> bool:
        with self._screen.step("Counted: all records of all topics and all rows, read back"):
            self._flow.terminate()
            table = (self._place.tables, TABLE)
            report = audit(self._place.servers, self._topics, GROUP, table, outcomes)
            show_count(self._screen, self._topics, report)
        return report.clean
