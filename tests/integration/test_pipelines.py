"""Several pipelines of one settings file: as one dataflow, and by name, each exactly once."""

from __future__ import annotations

import json
import random
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import lance
import pytest

from harness.audit import Report, audit, committed_offsets
from harness.flow import Flow, Supervised
from harness.process import free_port
from harness.workload import Topics, Workload, make_topics, produce
from telemetry.scrape import read_totals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from harness.broker import Broker

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

WAIT_S = 120.0
RECORDS = 240


@dataclass
class Shop:
    """Two pipelines with topics and tables of their own, and what runs them.

    Attributes:
        broker: A running broker.
        folder: An empty folder.
        texts: What the documents say.
        workers: Worker threads of a process.
        processes: Processes of a flow.
        names: The pipelines.
    """

    broker: Broker
    folder: Path
    texts: Sequence[str]
    workers: int = 1
    processes: int = 1
    names: tuple[str, str] = ("tickets", "orders")
    workloads: dict[str, Workload] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.id = f"shop-{uuid.uuid4().hex[:8]}"
        self.port = free_port()
        self.topics = {
            name: Topics(f"{self.id}.{name}", f"{self.id}.{name}.out", f"{self.id}.{name}.dead")
            for name in self.names
        }
        for seed, (name, topics) in enumerate(self.topics.items()):
            make_topics(self.broker.bootstrap_servers, topics, 2)
            self.workloads[name] = Workload(self.texts, 100, seed)

    def flow(self, recovery: str, *only: str) -> Flow:
        """All pipelines, or only some by name."""
        shared = Topics().environment(
            self.broker.bootstrap_servers, self.id, str(self.folder / "lancedb")
        )
        for theirs in ("SOURCE__TOPICS", "EMBEDDINGS__TOPIC", "DEAD_LETTERS__TOPIC"):
            del shared[f"HEADRACE_{theirs}"]
        pipelines = [
            {
                "name": name,
                "source": {"topics": [topics.source]},
                "embeddings": {"topic": topics.embeddings},
                "dead_letters": {"topic": topics.dead_letters},
            }
            for name, topics in self.topics.items()
        ]
        own = {
            "HEADRACE_PIPELINES": json.dumps(pipelines),
            "HEADRACE_PIPELINE": ",".join(only),
            "HEADRACE_METRICS__ADDRESS": f"127.0.0.1:{self.port}",
        }
        return Flow(
            shared | own,
            workers=self.workers,
            processes=self.processes,
            recovery=self.folder / recovery,
            snapshot_s=1,
            log=self.folder / "flow.log",
        )

    def write(self, name: str, records: int) -> None:
        """Write records to a pipeline's topic."""
        servers, workload = self.broker.bootstrap_servers, self.workloads[name]
        produce(servers, self.topics[name].source, workload, records, abort_share=0.2)

    def behind(self, name: str) -> int:
        """How many offsets a pipeline's sinks lack, both together."""
        servers, topics = self.broker.bootstrap_servers, self.topics[name]
        offsets = committed_offsets(servers, topics, f"{self.id}-{name}")
        progress = self._progress(name)
        return sum(
            (end - committed) + max(0, end - progress.get(f"{topic}/{partition:06d}", 0))
            for (topic, partition), (committed, end) in offsets.items()
        )

    def settle(self, *names: str) -> None:
        """Wait until those pipelines have all that was written."""
        self.wait(lambda: not any(self.behind(name) for name in names))

    def wait(self, done: Callable[[], bool]) -> None:
        """Wait for something; fails with the flow's log when it does not come."""
        deadline = time.monotonic() + WAIT_S
        while not done():
            told = (self.folder / "flow.log").read_text()[-4000:]
            assert time.monotonic() < deadline, told
            time.sleep(0.1)

    def report(self, name: str) -> Report:
        """What an audit of a pipeline counts."""
        table = (str(self.folder / "lancedb"), name)
        servers = self.broker.bootstrap_servers
        return audit(servers, self.topics[name], f"{self.id}-{name}", table)

    def ask(self, path: str) -> str:
        """What the process answers."""
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            text: bytes = answer.read()
        return text.decode()

    def _progress(self, name: str) -> dict[str, int]:
        path = self.folder / "lancedb" / f"{name}.lance"
        if not any(path.glob("_versions/*.manifest")):
            return {}
        fence: Any = lance.dataset(str(path)).to_table(columns=["metadata"], filter="id IS NULL")
        return dict(json.loads(fence.column("metadata")[0].as_py())["progress"])


def test_several_as_one_then_by_name(broker: Broker, tmp_path: Path, texts: list[str]) -> None:
    """Killed again and again, and then taken apart, no pipeline loses or doubles a record."""
    shop = Shop(broker, tmp_path, texts, workers=2)
    chooser = random.Random(7)  # noqa: S311 - reproducible, not secret
    with Supervised(shop.flow("recovery")) as supervised:
        for _ in range(2):
            for name in shop.names:
                shop.write(name, RECORDS // 4)
            time.sleep(chooser.uniform(1.0, 5.0))
            supervised.kill()
            for name in shop.names:
                shop.write(name, RECORDS // 4)
        shop.settle(*shop.names)
        _see_metrics(shop)
    with shop.flow("tickets", "tickets"):
        shop.write("tickets", 50)
        shop.write("orders", 50)
        shop.settle("tickets")
        assert shop.behind("orders")
    # On the store of both: what it holds of the other is passed over.
    with shop.flow("recovery", "orders"):
        shop.settle("orders")
    reports = {name: shop.report(name) for name in shop.names}
    assert all(report.clean for report in reports.values()), reports
    assert [report.records for report in reports.values()] == [RECORDS + 50] * 2
    assert supervised.restarts >= 2


def _see_metrics(shop: Shop) -> None:
    """The process tells of each pipeline apart, and is ready since both are."""
    told = json.loads(shop.ask("/health/ready"))
    assert told == {"status": "ok", "pipelines": {name: {"status": "ok"} for name in shop.names}}
    text = shop.ask("/metrics")
    for name in shop.names:
        totals = read_totals([text], pipeline=name)
        assert {topic for topic, _ in totals.lag} == {shop.topics[name].source}
        assert totals.topic > 0
    assert text.count("# TYPE headrace_records_sent_total counter") == 1


def test_one_that_fails_says_so(broker: Broker, tmp_path: Path, texts: list[str]) -> None:
    """One pipeline whose table is taken away ends the process by a line that names it."""
    shop = Shop(broker, tmp_path, texts)
    with shop.flow("recovery") as flow:
        for name in shop.names:
            shop.write(name, 50)
        shop.settle(*shop.names)
        (tmp_path / "lancedb" / "orders.lance").rename(tmp_path / "gone")
        shop.write("orders", 50)
        [code] = flow.wait(WAIT_S)
    assert code == 1
    [line] = [one for one in flow.log_text().splitlines() if one.startswith("headrace: ")]
    assert line.startswith("headrace: pipelines.orders: table.uri: ")
