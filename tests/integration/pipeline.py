"""A flow with topics and a table of its own, for tests that write a few records and look."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

import lancedb
from confluent_kafka import Producer

from harness.audit import Finding, Report, audit, committed_offsets, findings
from harness.flow import Flow
from harness.workload import Topics, make_topics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from harness.audit import Given
    from harness.broker import Broker

WAIT_S = 60.0


@dataclass
class Pipeline:
    """Topics, table and flow; as a context manager it starts the flow and stops it.

    Attributes:
        broker: A running broker.
        folder: An empty folder.
        partitions: Of the source topic.
        workers: Worker threads.
        settings: Further settings of the flow.
        source: The source topic; one named for the test unless given.
    """

    broker: Broker
    folder: Path
    partitions: int = 2
    workers: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        self.name = f"p-{uuid.uuid4().hex[:12]}"
        self.topics = Topics(self.source or self.name, f"{self.name}.out", f"{self.name}.dead")
        self.connect()
        make_topics(self.broker.bootstrap_servers, self.topics, self.partitions)
        self.flow = Flow(
            self.environment,
            workers=self.workers,
            recovery=self.folder / "recovery",
            log=self.folder / "flow.log",
        )

    @property
    def environment(self) -> dict[str, str]:
        """The flow's settings."""
        servers, uri = self.broker.bootstrap_servers, str(self.folder / "lancedb")
        return self.topics.environment(servers, self.name, uri) | dict(self.settings)

    def __enter__(self) -> Self:
        self.flow.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.flow.terminate()

    def connect(self) -> None:
        """A new producer."""
        config = {"bootstrap.servers": self.broker.bootstrap_servers, "log_level": 3}
        self.producer = Producer(config)

    def put(self, identity: str, text: str | None = None, **fields: Any) -> None:
        """Write a document; without text only its metadata."""
        value = fields if text is None else {"text": text, **fields}
        self.put_raw(identity.encode(), json.dumps(value).encode())

    def delete(self, identity: str) -> None:
        """Write a deletion."""
        self.put_raw(identity.encode(), None)

    def put_raw(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, str | bytes | None]] = (),
        partition: int = -1,
    ) -> None:
        """Write a record as it is."""
        self.producer.produce(self.topics.source, value, key, partition, headers=list(headers))

    def settle(self, timeout_s: float = WAIT_S) -> None:
        """Flush what was written and wait until both sinks have committed all of it."""
        self.producer.flush(30)
        self.wait(lambda: self._behind() == 0, timeout_s)

    def wait(self, done: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
        """Wait for something; fails with the flow's log when it does not come."""
        deadline = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < deadline, self.flow.log_text()[-4000:]
            time.sleep(0.05)

    def rows(self, predicate: str = "NOT deleted") -> dict[str, dict[str, Any]]:
        """The table's rows of first chunks, by id."""
        table = self.table()
        found = table.to_lance().to_table(filter=f"id IS NOT NULL AND chunk = 0 AND ({predicate})")
        return {row["id"]: row for row in found.to_pylist()}

    def table(self) -> Any:
        """The table's newest version."""
        database = lancedb.connect(
            str(self.folder / "lancedb"), read_consistency_interval=timedelta(0)
        )
        return database.open_table("documents")

    def outputs(self) -> list[Finding]:
        """What a read_committed consumer sees on the output topics."""
        return findings(self.broker.bootstrap_servers, self.topics)

    def audit(self, expected: Callable[[Sequence[Given]], Sequence[Given]]) -> Report:
        """The audit's report."""
        table = (str(self.folder / "lancedb"), "documents")
        return audit(self.broker.bootstrap_servers, self.topics, self.name, table, expected)

    def progress(self) -> dict[str, int]:
        """How many offsets each sink has committed, of all partitions together."""
        offsets = committed_offsets(self.broker.bootstrap_servers, self.topics, self.name)
        return {
            "topic": sum(committed for committed, _ in offsets.values()),
            "table": sum(self._progress().values()),
        }

    def _behind(self) -> int:
        offsets = committed_offsets(self.broker.bootstrap_servers, self.topics, self.name)
        progress = self._progress()
        return sum(
            (end - committed) + max(0, end - progress.get(f"{topic}/{partition:06d}", 0))
            for (topic, partition), (committed, end) in offsets.items()
        )

    def _progress(self) -> dict[str, int]:
        if not any(self.folder.glob("lancedb/documents.lance/_versions/*.manifest")):
            return {}
        fence = self.table().to_lance().to_table(columns=["metadata"], filter="id IS NULL")
        return dict(json.loads(fence.column("metadata")[0].as_py())["progress"])
