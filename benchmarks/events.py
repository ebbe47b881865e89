"""The event path: records of known texts, which need no inference, through the whole flow.

`python -m benchmarks.events [--records N] [--products N] [--processes N] [--in-flight N]`: a
backlog of product views, each with a product's title and new metadata, is drained by a real flow
from a real broker to the embeddings topic and the table, exactly once. What is counted are records
and CPU-seconds of the flow's processes between the moment when every title has been embedded and
the end.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from confluent_kafka import Producer

from benchmarks.usage import cpu_of
from harness.audit import committed_offsets
from harness.broker import Broker
from harness.flow import Flow
from harness.process import HarnessError, tail
from harness.workload import Topics, make_topics
from operators.records import Lane
from sinks.schema import TableSchema
from sinks.store import TableStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Events", "Workload", "main", "measure"]

_PARTITIONS = 4
_LIMIT_S = 600.0
_LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class Workload:
    """What is sent.

    Attributes:
        records: Views.
        products: Distinct documents, and as many distinct titles.
        processes: Of the flow.
        in_flight: The setting `source.max_in_flight`.
    """

    records: int = 400_000
    products: int = 5_000
    processes: int = 2
    in_flight: int = 8192


@dataclass(frozen=True, slots=True)
class Events:
    """What was measured, from when all titles were known.

    Attributes:
        records: Counted.
        seconds: Until both sinks had them.
        cpu_s: CPU-seconds of all of the flow's processes.
        per_s: Records a second.
        per_cpu_s: Records a CPU-second.
    """

    records: int
    seconds: float
    cpu_s: float
    per_s: float
    per_cpu_s: float


def measure(workload: Workload, folder: Path) -> Events:
    """Drains a backlog of views.

    Args:
        workload: What is sent.
        folder: An empty one, for the broker's data and the table.

    Raises:
        HarnessError: The flow ended, or did not drain it in time.
    """
    topics = Topics("views", "embeddings", "dead-letters")
    with Broker(folder=folder / "kafka") as broker:
        servers = broker.bootstrap_servers
        make_topics(servers, topics, _PARTITIONS)
        _produce(servers, topics.source, workload)
        settings = {
            **topics.environment(servers, "events", str(folder / "lancedb")),
            "HEADRACE_MODEL__CACHE_ENTRIES": str(2 * workload.products),
            "HEADRACE_SOURCE__MAX_IN_FLIGHT": str(workload.in_flight),
        }
        with Flow(settings, processes=workload.processes, recovery=folder / "recovery") as flow:
            return _Drain(flow, topics, servers, folder / "lancedb").watch(workload)


class _Drain:
    """Looks at the progress of both sinks while a backlog is drained."""

    def __init__(self, flow: Flow, topics: Topics, servers: str, uri: Path) -> None:
        self._flow = flow
        self._topics = topics
        self._servers = servers
        self._store = TableStore(str(uri), "documents", TableSchema(1), "", "")

    def watch(self, workload: Workload) -> Events:
        """The figures between the moment when all titles are known and the end."""
        # Every product is among the first records, in order; keys spread evenly over the lanes.
        known = 2 * workload.products // _PARTITIONS
        self._wait(lambda: min(self._written(), default=0) >= known)
        first, started, cpu = sum(self._written()), time.monotonic(), self._cpu()
        self._wait(lambda: sum(self._written()) >= workload.records)
        seconds, spent = time.monotonic() - started, self._cpu() - cpu
        records = workload.records - first
        return Events(records, seconds, spent, records / seconds, records / spent)

    def _wait(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _LIMIT_S
        while not done():
            if not self._flow.alive:
                raise HarnessError(f"flow: ended: {tail(self._flow.log, 5)}")
            if time.monotonic() > deadline:
                raise HarnessError(f"flow: {sum(self._written())} records in {_LIMIT_S:.0f} s")
            time.sleep(_LOOK_S)

    def _written(self) -> list[int]:
        """The records of each lane that both sinks have."""
        if not self._store.exists():
            return []
        table: Mapping[str, int] = self._store.fence(self._store.open()).progress
        topic = committed_offsets(self._servers, self._topics, "events")
        return [
            min(committed, table.get(Lane(*place).key, 0))
            for place, (committed, _) in topic.items()
        ]

    def _cpu(self) -> float:
        return cpu_of(self._flow.pids)


def _produce(servers: str, topic: str, workload: Workload) -> None:
    producer = Producer(
        {"bootstrap.servers": servers, "linger.ms": 50, "compression.type": "lz4", "log_level": 3}
    )
    chosen = random.Random(1)  # noqa: S311 - reproducible, not secret
    for number in range(workload.records):
        known = number >= workload.products
        product = chosen.randrange(workload.products) if known else number
        value = {
            "text": f"The title of product {product}, as its shop has it",
            "metadata": {"price": product / 7, "category": "toys", "views": number},
        }
        while True:
            try:
                producer.produce(topic, orjson.dumps(value), f"product-{product}")
            except BufferError:
                producer.poll(0.1)
            else:
                break
    if producer.flush(60):
        raise HarnessError(f"topic {topic}: the views could not be written")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints JSON.

    Returns:
        The exit code.
    """
    usual = Workload()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.events", description=__doc__)
    parser.add_argument("--records", type=int, default=usual.records)
    parser.add_argument("--products", type=int, default=usual.products)
    parser.add_argument("--processes", type=int, default=usual.processes)
    parser.add_argument("--in-flight", type=int, default=usual.in_flight)
    given = parser.parse_args(arguments)
    workload = Workload(given.records, given.products, given.processes, given.in_flight)
    with tempfile.TemporaryDirectory(prefix="headrace-events-", ignore_cleanup_errors=True) as at:
        try:
            found = measure(workload, Path(at))
        except HarnessError as error:
            print(f"benchmarks: {error}", file=sys.stderr)
            return error.exit_code
    print(json.dumps({**asdict(workload), **asdict(found)}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
