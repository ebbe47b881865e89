"""This machine's costs for `benchmarks.scaling`, from a real broker and real flows."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.deployment import Costs, Deployment, limit, simulate
from clients.kafka import KafkaConfig
from flows.access import encoder_of
from flows.settings import load
from harness.broker import Broker
from harness.memory import PARTITIONS, MemoryTrial, unlike
from harness.process import HOST, HarnessError, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Commits", "Drained", "calibrate", "solve"]

_DOCS: Final = 5000
_TRICKLE: Final = 60
_PROBE: Final = 1500
_SMALL, _LARGE = 1, 1000
_VALUE: Final = os.urandom(1800)  # about what an embedding of 384 dimensions has


@dataclass(frozen=True, slots=True)
class Commits:
    """What a flow's table has committed so far."""

    commits: float
    rows: float
    seconds: float

    def since(self, before: Commits) -> Commits:
        """What it has committed since then."""
        return Commits(
            self.commits - before.commits, self.rows - before.rows, self.seconds - before.seconds
        )


@dataclass(frozen=True, slots=True)
class Drained:
    """A backlog that a flow has worked off.

    Attributes:
        docs: Documents, no two alike.
        wall_s: Seconds until both sinks had all of them.
        cpu_s: CPU-seconds of all of the flow's processes.
        broker_cpu_s: CPU-seconds of the broker.
        commits: The table's.
    """

    docs: int
    wall_s: float
    cpu_s: float
    broker_cpu_s: float
    commits: Commits


def solve(few: Commits, many: Commits) -> tuple[float, float]:
    """Seconds of a commit and of a row, from many commits of few rows and few of many."""
    small, large = few.rows / few.commits, many.rows / many.commits
    took_small, took_large = few.seconds / few.commits, many.seconds / many.commits
    row = max(0.0, (took_large - took_small) / max(large - small, 1.0))
    return max(0.0, took_small - row * small), row


def calibrate(say: Callable[[str], object]) -> Costs:
    """Measure, and compare the simulation with the drains that were measured.

    Args:
        say: Takes what is found, line by line.

    Raises:
        HarnessError: A flow ended, or did not do in time what it was given.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-scaling-")))
        broker = stack.enter_context(Broker(folder=folder / "kafka"))
        transaction, produced = _broker(broker)
        alone, together = _contention()
        one, few = _drain(broker, folder / "one", 1)
        two, _ = _drain(broker, folder / "two", 2)
    commit, row = solve(few, one.commits)
    each = one.cpu_s / one.docs
    contention = max(1.0, together / alone)
    costs = Costs(
        document=max(alone, each - one.commits.seconds / one.docs),
        exchange=max(0.0, 2 * (two.cpu_s / two.docs - contention * each)),
        transaction=transaction,
        produced=produced,
        commit=commit,
        row=row,
    )
    say(f"{costs}")
    say(f"contention: with two processes at work a text costs {contention:.2f} times as much")
    for workers, drained in ((1, one), (2, two)):
        crowded = replace(costs, document=costs.document * (contention if workers > 1 else 1.0))
        say(_compared(workers, drained, crowded))
    return costs


def _compared(workers: int, drained: Drained, costs: Costs) -> str:
    cores = psutil.cpu_count() or 1
    deployment = Deployment(workers, PARTITIONS, machine_cores=cores)
    name, most = limit(costs, deployment)
    return (
        f"{workers} of {cores} cores: measured {drained.docs / drained.wall_s:,.0f} docs/s "
        f"({drained.cpu_s:.1f} CPU-s for {drained.docs} documents, the broker "
        f"{drained.broker_cpu_s:.1f}), simulated {simulate(costs, deployment, drained.docs):,.0f}, "
        f"calculated {most:,.0f} ({name})"
    )


def _drain(broker: Broker, folder: Path, processes: int) -> tuple[Drained, Commits]:
    """A drain, and what the table committed before it while documents trickled in."""
    folder.mkdir()
    address = f"{HOST}:{free_port()}"
    settings = {"HEADRACE_METRICS__ADDRESS": address}
    with MemoryTrial(broker, folder, settings, processes) as trial:
        before = _commits(address)
        for number in range(_TRICKLE):
            trial.write([{"text": f"trickle {number}"}], f"trickle-{number}")
            time.sleep(0.1)
        known = trial.written()
        between = _commits(address)
        trial.flow.pause()
        docs = trial.write(unlike(_DOCS))
        cpu, broker_cpu = _cpu(trial.flow.pids), _cpu([broker.pid])
        began = time.monotonic()
        trial.flow.resume()
        if not trial.wait(lambda: trial.written() >= known + docs):
            raise HarnessError(f"flow: {trial.written() - known} of {docs} documents in time")
        drained = Drained(
            docs,
            time.monotonic() - began,
            _cpu(trial.flow.pids) - cpu,
            _cpu([broker.pid]) - broker_cpu,
            _commits(address).since(between),
        )
    return drained, between.since(before)


def _commits(address: str) -> Commits:
    """What the flow's own metrics say; its first process writes the table."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found = {
        (sample.name, sample.labels.get("sink")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("outcome") in (None, "embedding")
    }
    return Commits(
        found["headrace_upsert_latency_ms_count", None],
        found.get(("headrace_records_sent_total", "table"), 0.0),
        found["headrace_upsert_latency_ms_sum", None] / 1000,
    )


def _contention() -> tuple[float, float]:
    """CPU-seconds of a text for the model alone, in one process and in two at a time."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(_probe, range(2), chunksize=1)  # until both have loaded it
        [alone] = pool.map(_probe, range(1), chunksize=1)
        together = pool.map(_probe, range(2), chunksize=1)
    return alone, sum(together) / len(together)


def _probe(part: int) -> float:
    """CPU-seconds of a text, in this process."""
    encoder = encoder_of(load(os.environ, Path.cwd()))
    texts = [str(document["text"]) for document in unlike(2 * _PROBE)][part::2]
    began = time.process_time()
    for first in range(0, len(texts), 256):
        encoder.encode(texts[first : first + 256])
    return (time.process_time() - began) / len(texts)


def _broker(broker: Broker) -> tuple[float, float]:
    """The broker's CPU-seconds of a transaction, and of a record in it."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 3})
    new = NewTopic("calibration", num_partitions=1, replication_factor=1)
    admin.create_topics([new])["calibration"].result()
    kafka = KafkaConfig(broker.bootstrap_servers, "calibration")
    producer = kafka.transactional_producer("calibration", **{"compression.type": "lz4"})
    kafka.patiently("calibrating", lambda: producer.init_transactions(10))

    def spend(rows: int, times: int) -> float:
        began = _cpu([broker.pid])
        for _ in range(times):
            producer.begin_transaction()
            for number in range(rows):
                producer.produce("calibration", _VALUE, b"%d" % number)
            producer.commit_transaction(30)
        return (_cpu([broker.pid]) - began) / times

    spend(_LARGE, 10)  # until the JVM has compiled it
    spend(_SMALL, 400)
    small, large = spend(_SMALL, 1000), spend(_LARGE, 20)
    record = (large - small) / (_LARGE - _SMALL)
    return small - record, record


def _cpu(pids: Iterable[int]) -> float:
    """CPU-seconds of processes and their children so far."""
    time.sleep(0.2)  # what they still do for what is done counts too
    total = 0.0
    for pid in pids:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            times = one.cpu_times()
            total += times.user + times.system
    return total
