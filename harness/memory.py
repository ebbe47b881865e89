"""The memory runs: does a flow stay under its stated bound, and flat, whatever its backlog?

    python -m harness.memory [CASE ...] [--docs N] [--seconds S] [--processes N]

Each case lets a flow work on a backlog, samples the resident memory of every process of the flow
once a second, and prints peak, first and last third beside the bound. Exits 1 if a process
exceeds it. What the bound adds up is `docs/operations.md`'s sum, in code.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import psutil
from confluent_kafka import Producer

from flows.settings import load
from harness.broker import Broker
from harness.flow import Flow, Supervised
from harness.process import HarnessError, tail
from harness.texts import docstrings
from harness.workload import Topics, make_topics
from operators.current import VIEW_BYTES
from sinks.store import INDEX_CACHE_BYTES, METADATA_CACHE_BYTES
from sources.budget import read_ahead
from sources.lane import FETCH_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from flows.settings import Settings

__all__ = ["CASES", "MemoryTrial", "Usage", "bound", "main"]

MIB: Final = 1 << 20
PARTITIONS: Final = 4
DIMENSION: Final = 384
"""Of the default model's vectors."""

LARGE_BYTES: Final = 899_000
"""The text of the largest documents that the defaults allow, but for the key and the JSON."""

TIMES_IN_FLIGHT: Final = 6
"""How many copies of a record's bytes there can be at a time, one after another made from the one
before: as read, as text, as the topic's record and librdkafka's copy of it, as an Arrow column,
and as Lance's page."""

RECORD_BYTES: Final = 3_000
"""What a record takes beside its bytes and its vectors: Python's objects in all its forms."""

MERGE_BYTES: Final = 256 * MIB
"""What Lance uses for a while: a merge's join with the table's keys, a compaction's pages."""

RESTARTS: Final = 5
"""How often the watchdog may end a flow in a case before something else must be wrong."""

_WAIT_S: Final = 120.0
_INDEXING_S: Final = 120.0
_WARM: Final = 64


def bound(
    settings: Settings, lanes: int, dimension: int, rows: int, workers: int = 1
) -> dict[str, int]:
    """What one process may use beyond an idle flow's memory, in bytes, by what for.

    Args:
        settings: The flow's.
        lanes: How many lanes the process may have to read; all of them, if it is the last one.
        dimension: Of the vectors.
        rows: Of the table.
        workers: Worker threads of the process.
    """
    source, model = settings.source, settings.model
    ahead = read_ahead(lanes)
    vector = 4 * dimension * model.max_chunks
    # Lance trains an index on 256 vectors for each partition, and has the root of the rows of them.
    indexed = rows * model.max_chunks >= settings.table.index_rows
    trained = 256 * math.isqrt(rows * model.max_chunks) * 4 * dimension if indexed else 0
    # As embedded, in the topic's record, in Arrow; and those of the version before.
    copies = 4 if settings.reuses else 3
    one_batch = max(64 * 1024, source.max_record_bytes)
    return {
        "read ahead": lanes * 2 * (ahead + max(min(FETCH_BYTES, ahead), source.max_record_bytes)),
        "bytes in flight": TIMES_IN_FLIGHT
        * (workers * source.max_in_flight_bytes + lanes * one_batch),
        "records in flight": workers * source.max_in_flight * (RECORD_BYTES + copies * vector),
        "rows kept": VIEW_BYTES,
        "encodings kept": model.cache_bytes,
        "Lance's caches": INDEX_CACHE_BYTES + METADATA_CACHE_BYTES,
        "Lance at work": MERGE_BYTES,
        "Lance's index": trained,
    }


@dataclass(frozen=True, slots=True)
class Usage:
    """One process's resident memory over a case, in bytes.

    Attributes:
        name: Which process.
        idle: Before there was a backlog.
        samples: Once a second.
        peak: The most, by the kernel's own count where it has one.
        bound: The most that it may be.
    """

    name: str
    idle: int
    samples: Sequence[int]
    peak: int
    bound: int

    @property
    def first(self) -> float:
        """The mean of the first third."""
        return _mean(self.samples[: max(1, len(self.samples) // 3)])

    @property
    def last(self) -> float:
        """The mean of the last third."""
        return _mean(self.samples[-max(1, len(self.samples) // 3) :])

    @property
    def good(self) -> bool:
        """Whether it stayed under its bound."""
        return self.peak <= self.bound

    def __str__(self) -> str:
        return (
            f"{self.name}: idle {self.idle / MIB:.0f}, first third {self.first / MIB:.0f}, last "
            f"third {self.last / MIB:.0f}, peak {self.peak / MIB:.0f} of {self.bound / MIB:.0f} MiB"
            f" in {len(self.samples)} s"
        )


class Sampler:
    """Samples the resident memory of processes once a second, in a thread.

    Args:
        pids: Asks which processes to look at; their children are looked at too.
    """

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids
        self.samples: dict[int, list[int]] = {}
        self.peaks: dict[int, int] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-sampler", daemon=True)

    def look(self) -> dict[int, int]:
        """The resident memory of each process now, in bytes."""
        found: dict[int, int] = {}
        for process in _with_children(self._pids()):
            with contextlib.suppress(psutil.Error):
                found[process.pid] = process.memory_info().rss
        return found

    def __enter__(self) -> Self:
        for pid in self.look():
            _reset_peak(pid)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(1.0):
            for pid, size in self.look().items():
                self.samples.setdefault(pid, []).append(size)
                self.peaks[pid] = max(self.peaks.get(pid, 0), size, _peak(pid))


@dataclass
class MemoryTrial:
    """A flow, its backlog, and what its processes use.

    As a context manager it makes the topics and starts the flow on entry, and stops it on exit.

    Attributes:
        broker: A running broker.
        folder: An empty folder for the table and the logs.
        settings: Further settings of the flow.
        processes: Of the flow.
    """

    broker: Broker
    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    processes: int = 1

    def __post_init__(self) -> None:
        self.name = f"memory-{self.folder.name}"
        self.topics = Topics(self.name, f"{self.name}.out", f"{self.name}.dead")
        servers, uri = self.broker.bootstrap_servers, str(self.folder / "lancedb")
        environment = self.topics.environment(servers, self.name, uri) | dict(self.settings)
        self.parsed = load(environment, self.folder)
        self.flow = Flow(
            environment,
            processes=self.processes,
            log=self.folder / "flow.log",
        )
        # Restarted, as a user's is: the watchdog ends it where a dead broker leaves a call hanging.
        self.supervised = Supervised(self.flow)
        self._ids: set[str] = set()
        self._sampler = Sampler(lambda: self.flow.pids)

    def __enter__(self) -> Self:
        make_topics(self.broker.bootstrap_servers, self.topics, PARTITIONS)
        self.supervised.start()
        try:
            self.write(({"text": f"warm {n}"} for n in range(_WARM)), "warm")
            self.wait(lambda: self.written() >= _WARM)
        except BaseException:
            self.supervised.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.supervised.stop()

    def write(
        self, documents: Iterable[Mapping[str, object]], prefix: str = "doc", ids: int = 1 << 30
    ) -> int:
        """Write documents of so many ids to the source topic, acknowledged; returns how many."""
        producer = Producer(
            {
                "bootstrap.servers": self.broker.bootstrap_servers,
                "linger.ms": 50,
                "compression.type": "lz4",
                "queue.buffering.max.kbytes": 65_536,
                "log_level": 3,
            }
        )
        count = 0
        for count, document in enumerate(documents, start=1):
            identity = f"{prefix}-{count % ids}"
            self._ids.add(identity)
            _produce(producer, self.topics.source, identity, json.dumps(document))
        producer.flush(120)
        return count

    def written(self) -> int:
        """How many records both sinks have; warm-up included."""
        # Imported late: Lance starts threads, which a caller that only parses has no use for.
        from harness.audit import committed_offsets  # noqa: PLC0415

        servers = self.broker.bootstrap_servers
        offsets = committed_offsets(servers, self.topics, self.name)
        table = _progress(self.folder / "lancedb" / "documents.lance")
        return sum(
            min(max(0, committed), table.get(f"{topic}/{partition:06d}", 0))
            for (topic, partition), (committed, _) in offsets.items()
        )

    def wait(self, done: Callable[[], bool], timeout_s: float = _WAIT_S) -> bool:
        """Wait for something; whether it came in time.

        Raises:
            HarnessError: The flow ends again and again.
        """
        deadline = time.monotonic() + timeout_s
        while not done():
            if self.supervised.restarts > RESTARTS:
                exits = self.supervised.exits
                raise HarnessError(f"flow: ended with {exits}: {tail(self.flow.log, 3)}")
            if time.monotonic() > deadline:
                return False
            time.sleep(0.5)
        return True

    @contextlib.contextmanager
    def table_stopped(self) -> Iterator[None]:
        """Stop the table's commits while the block runs.

        A flow's only child is the process that writes its table.
        """
        pids = set(self.flow.pids)
        writers = [one for one in _with_children(pids) if one.pid not in pids]
        for writer in writers:
            writer.suspend()
        try:
            yield
        finally:
            for writer in writers:
                writer.resume()

    @contextlib.contextmanager
    def sampled(self) -> Iterator[list[Usage]]:
        """Sample while the block runs; the list is filled when it ends."""
        usages: list[Usage] = []
        idle = self._sampler.look()
        most = sum(bound(self.parsed, PARTITIONS, DIMENSION, len(self._ids)).values())
        with self._sampler:
            yield usages
        for number, (pid, samples) in enumerate(self._sampler.samples.items()):
            # One that was started meanwhile is not idle for a moment.
            before = idle.get(pid, max(idle.values(), default=0))
            peak = self._sampler.peaks[pid]
            usages.append(Usage(f"process {number}", before, samples, peak, before + most))


def short(count: int, distinct: int = 1000) -> Iterator[dict[str, object]]:
    """Documents of one line each; so few texts that the cache answers for nearly all."""
    lines = [found.text.splitlines()[0] for found in docstrings(distinct)]
    for number in range(count):
        yield {"text": lines[number % len(lines)], "metadata": {"number": number}}


def unlike(count: int) -> Iterator[dict[str, object]]:
    """Documents of one line each, no two alike: each costs an inference."""
    for number, document in enumerate(short(count)):
        yield {**document, "text": f"{number} {document['text']}"}


def large(count: int, distinct: int = 1000) -> Iterator[dict[str, object]]:
    """Documents as large as the defaults allow, so many of them different."""
    words = " ".join(found.text for found in docstrings(4000)).encode("ascii", "ignore").decode()
    # Nothing that JSON would escape, so that a character is a byte.
    words = words.translate({ord(c): " " for c in '"\\\n\t\r'}) * 2
    for number in range(count):
        start = number % distinct * 97
        yield {"text": f"{number % distinct} {words[start : start + LARGE_BYTES]}"[:LARGE_BYTES]}


def backlog(trial: MemoryTrial, docs: int, seconds: float) -> list[Usage]:
    """A backlog of few distinct texts, until it is drained or the time is over."""
    return _drain(trial, trial.write(short(docs)), seconds)


def updates(trial: MemoryTrial, docs: int, seconds: float) -> list[Usage]:
    """The same, of 20,000 ids alone: the table stays small while the backlog is worked off."""
    return _drain(trial, trial.write(short(docs), ids=20_000), seconds)


def inference(trial: MemoryTrial, docs: int, seconds: float) -> list[Usage]:
    """The same with texts that are all embedded."""
    return _drain(trial, trial.write(unlike(docs)), seconds)


def largest(trial: MemoryTrial, docs: int, seconds: float) -> list[Usage]:
    """The largest documents that are allowed; one for 500 of `docs`, at least 200."""
    return _drain(trial, trial.write(large(max(200, docs // 500))), seconds)


def table(trial: MemoryTrial, docs: int, seconds: float) -> list[Usage]:
    """The table stops for 20 s at a time, which is less than the watchdog allows.

    Its texts are indexed while it is written and after that, so sampling goes on for a while.
    """

    def stop() -> None:
        with trial.table_stopped():
            time.sleep(20)

    return _drain(trial, trial.write(large(max(200, docs // 500), 8)), seconds, stop, _INDEXING_S)


def broker(trial: MemoryTrial, docs: int, seconds: float) -> list[Usage]:
    """The broker hangs for 15 s, then is killed and comes back 5 s later, and so on."""
    count = trial.write(unlike(docs))
    turns = iter(range(1000))

    def stop() -> None:
        if next(turns) % 2 == 0:
            trial.broker.pause()
            time.sleep(15)
            trial.broker.resume()
        else:
            trial.broker.kill()
            time.sleep(5)
            trial.broker.start()

    return _drain(trial, count, seconds, stop)


CASES: Final[dict[str, Callable[[MemoryTrial, int, float], list[Usage]]]] = {
    "backlog": backlog,
    "updates": updates,
    "inference": inference,
    "large": largest,
    "table": table,
    "broker": broker,
}


def run(name: str, docs: int, seconds: float, processes: int) -> bool:
    """Run one case on a broker of its own; whether every process stayed under its bound."""
    folder = Path(tempfile.mkdtemp(prefix=f"headrace-memory-{name}-"))
    with (
        Broker(folder=folder / "kafka") as running,
        MemoryTrial(running, folder, processes=processes) as trial,
    ):
        usages = CASES[name](trial, docs, seconds)
        done = trial.written()
    good = all(usage.good for usage in usages)
    verdict = "under the bound" if good else "ABOVE THE BOUND"
    sys.stdout.write(f"{name}: {verdict}, {done} documents written\n")
    for usage in usages:
        sys.stdout.write(f"  {usage}\n")
    sys.stdout.flush()
    if good:
        shutil.rmtree(folder)
    return good


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named cases, or all."""
    parser = argparse.ArgumentParser(prog="python -m harness.memory", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--docs", type=int, default=1_000_000, help="documents of the backlog")
    parser.add_argument("--seconds", type=float, default=300.0, help="the longest time of a case")
    parser.add_argument("--processes", type=int, default=1, help="processes of the flow")
    given = parser.parse_args(arguments)
    unknown = set(given.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    names = given.cases or list(CASES)
    return int(False in [run(n, given.docs, given.seconds, given.processes) for n in names])


def _drain(
    trial: MemoryTrial,
    count: int,
    seconds: float,
    disturb: Callable[[], None] | None = None,
    longer_s: float = 0.0,
) -> list[Usage]:
    """Sample until so many documents are written or the time is over, disturbing now and then.

    Then sample for that much longer.
    """
    deadline = time.monotonic() + seconds
    with trial.sampled() as usages:
        while time.monotonic() < deadline:
            left = deadline - time.monotonic()
            slice_s = min(left, 10.0) if disturb else left
            if trial.wait(lambda: trial.written() >= count + _WARM, slice_s):
                break
            if disturb and deadline - time.monotonic() > 20:
                disturb()
        time.sleep(longer_s)
    return usages


def _produce(producer: Producer, topic: str, key: str, value: str) -> None:
    while True:
        try:
            producer.produce(topic, value, key)
        except BufferError:
            producer.poll(0.1)
        else:
            producer.poll(0)
            return


def _progress(path: Path) -> dict[str, int]:
    import lance  # noqa: PLC0415 - see `written`

    try:
        fence = lance.dataset(path).to_table(columns=["metadata"], filter="id IS NULL")
    except (OSError, ValueError):
        return {}  # not made yet
    return dict(json.loads(fence.column("metadata")[0].as_py())["progress"])


def _with_children(pids: Iterable[int]) -> Iterator[psutil.Process]:
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            yield process
            yield from process.children(recursive=True)


def _reset_peak(pid: int) -> None:
    """Let the kernel count a process's peak from now on, where it does."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _peak(pid: int) -> int:
    """The most that a process had resident, in bytes; 0 where the kernel doesn't say."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _mean(samples: Sequence[int]) -> float:
    return sum(samples) / len(samples) if samples else 0.0


if __name__ == "__main__":
    sys.exit(main())
