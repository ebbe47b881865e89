"""Another model goes live over a stream that goes on, whatever is killed meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import lance
import numpy as np
import psutil
import pytest

from cli.follower import variables
from harness.audit import Finding, committed_offsets, findings
from harness.flow import Flow, Supervised
from harness.process import Child, bare_environment
from harness.server import service
from harness.workload import Topics
from sinks.aliases import Aliases
from tests.cli.conftest import headrace
from tests.integration.pipeline import Pipeline
from tests.operators.model.tiny import model_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import httpx

    from harness.broker import Broker

pytestmark = pytest.mark.kafka

LETTERS = "abcdefghijklmnopqrstuvwxyz"
DOCUMENTS = 240
MOMENT_S = 5.0
"""More than the new table may be behind at the switch, on a machine that has other work."""


class Beside:
    """Does something again and again in a thread, from entry to exit."""

    pause_s = 0.05

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def again(self) -> None:
        """Do it once."""
        raise NotImplementedError

    def _run(self) -> None:
        while not self._ended.wait(self.pause_s):
            self.again()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


class Writer(Beside):
    """Goes on writing documents, changing their metadata and deleting them."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__()
        self._pipeline = pipeline
        self._random = random.Random(7)  # noqa: S311 - the same each time
        self._number = 0

    def text(self) -> str:
        """Some words of a letter."""
        return " ".join(self._random.choices(LETTERS, k=self._random.randint(1, 9)))

    def step(self, number: int) -> None:
        """One write; documents whose names begin with `kept` or `late` are never deleted."""
        name = f"d{self._random.randrange(DOCUMENTS)}"
        kind = number % 4
        if kind == 0:
            self._pipeline.delete(name)
        elif kind == 1:
            self._pipeline.put(f"kept{number % 40}", metadata={"seen": number})
        elif kind == 2:
            self._pipeline.put(f"late{number % 1200}", self.text())
        else:
            self._pipeline.put(name, self.text(), metadata={"n": number})
        self._pipeline.producer.poll(0)

    def again(self) -> None:
        """One more write."""
        self._number += 1
        self.step(self._number)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._pipeline.producer.flush(30)


class Reader(Beside):
    """Searches all the time, and notes each answer that is not as it must be.

    What it has once seen of documents that are never deleted it must see again and again; what it
    has seen a moment ago may be missing right after the switch.
    """

    pause_s = 0.1

    def __init__(self, client: httpx.Client, wanted: set[str]) -> None:
        super().__init__()
        self.searches = 0
        self.faults: list[str] = []
        self._client = client
        self._seen = dict.fromkeys(wanted, 0.0)

    def again(self) -> None:
        """One more search, in each mode in turn."""
        mode = ("vector", "text", "hybrid")[self.searches % 3]
        asked = {"query": "a b c d e f g", "k": 1000, "mode": mode}
        asked_at = time.monotonic()
        answer = self._client.post("/v1/search", json=asked)
        self.searches += 1
        if answer.status_code != 200:
            self.faults.append(answer.text)
        elif mode != "text":
            self._look({item["id"] for item in answer.json()["items"]}, asked_at)

    def _look(self, found: set[str], asked_at: float) -> None:
        old = {name for name, since in self._seen.items() if asked_at - since > MOMENT_S}
        if old - found:
            self.faults.append(f"lacks {sorted(old - found)}")
        for name in found:
            if name.startswith("late"):
                self._seen.setdefault(name, time.monotonic())


class Migration:
    """`headrace migrate` in a process of its own, as often as it is killed."""

    def __init__(self, environment: Mapping[str, str], folder: Path, *arguments: str) -> None:
        self._environment = {**bare_environment(), "TMPDIR": str(folder), **environment}
        self._folder = folder
        self._arguments = arguments
        self.log = folder / "migrate.log"
        self._child: Child | None = None

    def start(self) -> None:
        """Run the command."""
        command = [sys.executable, "-m", "cli.main", "migrate", *self._arguments]
        self._child = Child(command, log=self.log, environment=self._environment)

    def kill(self) -> None:
        """End by -9 the command and the flow that it has started, which has its own session."""
        assert self._child is not None
        flows = self.flows()
        self._child.kill()
        for pid in flows:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def flows(self) -> list[int]:
        """The process ids of the flow that it runs."""
        assert self._child is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            return [one.pid for one in psutil.Process(self._child.pid).children()]
        return []

    def interrupt(self) -> int:
        """Ask it to end; its exit code."""
        assert self._child is not None
        return self._child.terminate(60)

    def wait(self, timeout_s: float) -> int:
        """Wait until it ends; its exit code."""
        assert self._child is not None
        return self._child.wait(timeout_s)

    def until(self, done: Callable[[], bool], timeout_s: float = 300) -> None:
        """Wait for something, while it runs."""
        assert self._child is not None
        deadline = time.monotonic() + timeout_s
        while not done():
            assert self._child.alive, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None and self._child.alive:
            self.kill()


@pytest.fixture
def models(tmp_path: Path) -> tuple[str, str]:
    """Two models, whose vectors have nothing to do with each other."""
    return str(model_folder(tmp_path / "old")), str(model_folder(tmp_path / "new", seed=1))


@pytest.fixture
def pipeline(broker: Broker, tmp_path: Path, models: tuple[str, str]) -> Iterator[Pipeline]:
    """A flow of the old model over a topic with documents."""
    settings = {
        "HEADRACE_MODEL__NAME": models[0],
        "HEADRACE_MODEL__CACHE": str(tmp_path / "cache"),
        "HEADRACE_MODEL__RUNTIME": "onnxruntime",
        "HEADRACE_MODEL__PRECISION": "fp32",
        "HEADRACE_BATCH__ROWS": "10",
    }
    pipeline = Pipeline(broker, tmp_path, settings=settings)
    writer = Writer(pipeline)
    for number in range(DOCUMENTS):
        pipeline.put(f"d{number}", writer.text(), metadata={"n": number})
    for number in range(40):
        pipeline.put(f"kept{number}", writer.text())
    for number in range(0, DOCUMENTS, 7):
        pipeline.delete(f"d{number}")
    with pipeline:
        pipeline.settle()
        yield pipeline


def told(pipeline: Pipeline, *arguments: str) -> dict[str, Any]:
    """What a command prints as JSON."""
    done = headrace(pipeline.environment, *arguments, "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = done.json
    return found


def alias_of(pipeline: Pipeline) -> Any:
    """The alias as it is now."""
    return Aliases(str(pipeline.folder / "lancedb")).get("documents")


def rows_of(folder: Path, table: str) -> dict[tuple[str, int], dict[str, Any]]:
    """A table's rows, without when they were embedded."""
    found = lance.dataset(str(folder / f"{table}.lance")).to_table(filter="NOT deleted")
    rows = {(row["id"], row["chunk"]): row for row in found.to_pylist()}
    for row in rows.values():
        del row["embedded_at"]
    return rows


def seeded_of(pipeline: Pipeline) -> int:
    """How many rows have been embedded anew."""
    alias = alias_of(pipeline)
    if alias is None or alias.next is None:
        return 0
    return int(fence_of(pipeline.folder / "lancedb", alias.next.table).get("seeded", 0))


def snapshot_of(pipeline: Pipeline) -> dict[str, int]:
    """The progress of the version that a new table is seeded from."""
    path, version = (
        pipeline.folder / "lancedb" / "documents.lance",
        alias_of(pipeline).next.snapshot,
    )
    found = lance.dataset(str(path), version=version)
    fence = found.to_table(columns=["metadata"], filter="id IS NULL").column("metadata")
    return dict(json.loads(fence[0].as_py())["progress"])


def topics_of(pipeline: Pipeline, now: dict[str, Any]) -> Topics:
    """The topics of the flow that readers have."""
    settings = now["current"]["settings"]
    names = (settings["embeddings.topic"], settings["dead_letters.topic"])
    return Topics(pipeline.topics.source, *names)


def outcomes_of(pipeline: Pipeline, now: dict[str, Any]) -> list[Finding]:
    """What a reader sees on the topics of the flow that readers have."""
    return findings(pipeline.broker.bootstrap_servers, topics_of(pipeline, now))


def lacks(pipeline: Pipeline, now: dict[str, Any]) -> int:
    """How many records have no committed outcome yet of the flow that readers have."""
    group = now["current"]["settings"]["kafka.application_id"]
    servers = pipeline.broker.bootstrap_servers
    offsets = committed_offsets(servers, topics_of(pipeline, now), group)
    return sum(end - committed for committed, end in offsets.values())


def from_scratch(
    pipeline: Pipeline, model: str, folder: Path, progress: dict[str, int]
) -> dict[tuple[str, int], Any]:
    """The rows of a table that is made of the topic with a model, and nothing else."""
    settings = {
        **pipeline.environment,
        "HEADRACE_MODEL__NAME": model,
        "HEADRACE_KAFKA__APPLICATION_ID": f"{pipeline.name}-scratch",
        "HEADRACE_TABLE__URI": str(folder),
    }
    with Flow(settings, log=folder / "flow.log"):
        pipeline.wait(lambda: progress_of(folder, "documents") == progress, 300)
    return rows_of(folder, "documents")


def fence_of(folder: Path, table: str) -> dict[str, Any]:
    """What the fence row of a table says, nothing where there is no table yet."""
    with contextlib.suppress(ValueError):
        found = lance.dataset(str(folder / f"{table}.lance"))
        fence = found.to_table(columns=["metadata"], filter="id IS NULL").column("metadata")
        return dict(json.loads(fence[0].as_py()))
    return {}


def progress_of(folder: Path, table: str) -> dict[str, int]:
    """The progress of a table."""
    return dict(fence_of(folder, table).get("progress", {}))


@pytest.mark.timeout(600)
def test_kills_in_every_phase(pipeline: Pipeline, models: tuple[str, str], tmp_path: Path) -> None:
    """Reads and writes never stop, kills change nothing, and the table is as one made anew."""
    kept = {f"kept{number}" for number in range(40)}
    with (
        service(tmp_path, pipeline.environment, "search") as client,
        Reader(client, kept) as reader,
        Migration(pipeline.environment, tmp_path, "--model", models[1]) as migration,
    ):
        with Writer(pipeline):
            migration.start()
            uri = pipeline.folder / "lancedb"
            migration.until(lambda: 0 < seeded_of(pipeline) < DOCUMENTS - 40)
            migration.kill()
            half = told(pipeline, "migrate", "--status")
            assert half["phase"] == "seeding"
            assert 0 < half["seeded"] < half["rows"]
            begun = sum(snapshot_of(pipeline).values())
            migration.start()
            migration.until(lambda: bool(migration.flows()))
            assert told(pipeline, "migrate", "--status")["phase"] == "following"
            assert migration.interrupt() == 130
            migration.start()
            migration.until(lambda: alias_of(pipeline).previous is not None)
            migration.until(lambda: "table changed" in (tmp_path / "server.log").read_text(), 60)
            migration.kill()
            # Readers have the new table; the flow that keeps it is the next run's.
            migration.start()
        # A deployment with the settings that are told takes over, and the command ends by itself.
        migration.until(lambda: bool(migration.flows()))
        now = told(pipeline, "migrate", "--status")
        assert now["phase"] == "switched"
        table = now["current"]["table"]
        changed = {**pipeline.environment, **variables(now["current"]["settings"])}
        with Supervised(Flow(changed, log=tmp_path / "new.log")):
            assert migration.wait(300) == 0
            pipeline.settle()
            pipeline.wait(lambda: progress_of(uri, table) == progress_of(uri, "documents"), 300)
            # The flow before it may have brought the table there, and left the topic to this one.
            pipeline.wait(lambda: lacks(pipeline, now) == 0, 300)
        pipeline.flow.terminate()
        assert told(pipeline, "migrate", "--drop-old")["phase"] == "none"
        assert not (uri / "documents.lance").exists()
        searches = reader.searches
        while reader.searches < searches + 6:
            time.sleep(0.05)
    assert reader.faults == []
    found, progress = rows_of(uri, table), progress_of(uri, table)
    # The new topic has one outcome of each record behind the seeding, and none before.
    assert len(outcomes_of(pipeline, now)) == sum(progress.values()) - begun
    wanted = from_scratch(pipeline, models[1], tmp_path / "scratch", progress)
    assert found.keys() == wanted.keys()
    assert kept < {name for name, _ in found}
    for key, row in found.items():
        np.testing.assert_allclose(row.pop("vector"), wanted[key].pop("vector"), atol=1e-6)
        assert row == wanted[key]


def test_from_the_topic_and_back(
    pipeline: Pipeline, models: tuple[str, str], tmp_path: Path
) -> None:
    """From the topic each record has an outcome of the new model; then it can all be undone."""
    uri = pipeline.folder / "lancedb"
    arguments = ("--model", models[1], "--from", "topic")
    with Migration(pipeline.environment, tmp_path, *arguments) as migration:
        migration.start()
        migration.until(lambda: alias_of(pipeline) is not None)
        migration.until(lambda: alias_of(pipeline).previous is not None)
        now = told(pipeline, "migrate", "--status")
        assert migration.interrupt() == 130
    assert len(outcomes_of(pipeline, now)) == sum(progress_of(uri, "documents").values())
    new, old = rows_of(uri, now["current"]["table"]), rows_of(uri, "documents")
    assert new.keys() == old.keys()
    assert {row["model"] for row in new.values()}.isdisjoint(r["model"] for r in old.values())
    found = headrace(pipeline.environment, "search", "a b", "--json").json
    assert found[0]["id"] in {name for name, _ in new}
    assert told(pipeline, "status")["table"]["name"] == now["current"]["table"]
    assert told(pipeline, "migrate", "--rollback")["phase"] == "following"
    assert told(pipeline, "status")["table"]["name"] == "documents"
    assert told(pipeline, "migrate", "--abandon")["phase"] == "none"
    assert not (uri / f"{now['current']['table']}.lance").exists()
