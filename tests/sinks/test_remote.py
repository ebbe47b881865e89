from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from operators.routing import TABLE
from recovery.progress import Board
from recovery.watchdog import EXIT_STALLED, Watchdog
from sinks.errors import SinkError, WriterLostError
from sinks.maintenance import Upkeep
from sinks.pace import Pace
from sinks.protocol import Opening
from sinks.remote import RemoteWriter
from sinks.rows import table_rows
from sinks.table import TablePartitionSink
from telemetry.metrics import Metrics
from tests.samples import LANE, Fields, embedding, outcomes, tombstone, until
from tests.sinks.tables import NEVER, Table, live, routed_in, store_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

    from operators.records import OutcomeBatch
    from sinks.protocol import Written
    from sinks.routed import RoutedStore
    from sinks.store import TableStore


class Remote:
    """A writer in a process of its own, and what would have ended this one."""

    def __init__(self, folder: Path, max_chunks: int = 1) -> None:
        self.store: TableStore = store_in(folder)
        self.store.ensure()
        self.ends: list[tuple[str, int]] = []
        opening = Opening(self.store, NEVER, max_chunks)
        self.writer = RemoteWriter(opening, lambda *told: self.ends.append(told))

    def commit(self, *batches: OutcomeBatch) -> Written:
        """Commit batches together."""
        progress = {batch.lane.key: batch.end for batch in batches}
        return self.writer.commit(self.store.schema.rows(table_rows(batches)), progress)


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    """A writer of an empty table."""
    made = Remote(tmp_path)
    yield made
    made.writer.close()


def gone(pid: int) -> bool:
    """Whether a process has ended, waited for or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_commits_as_the_writer_does(remote: Remote) -> None:
    """Rows, deletions and progress reach the table; the answer says what it holds and took."""
    assert (remote.writer.opened.progress, remote.writer.opened.rows) == ({}, 1)
    written = remote.commit(outcomes([embedding("a", "1"), embedding("b", "1")]))
    assert written.rows == 3
    assert 0 < written.cpu_s < 60
    remote.commit(outcomes([embedding("a", "2"), tombstone("b")], 2))
    assert live(remote.store) == {("a", 0): "2"}
    assert remote.store.progress([LANE.key]) == {LANE.key: 4}


def test_index_builds_are_told(tmp_path: Path) -> None:
    """An index that was made beside commits is told once, with its time, by a later commit."""
    store = store_in(tmp_path)
    store.ensure()
    writer = RemoteWriter.open(store, Upkeep(1 << 40, 1e9, text_index=True), 1)
    builds: list[float] = []
    for number in range(100):
        batch = outcomes([embedding(f"{number}")], number)
        rows = store.schema.rows(table_rows([batch]))
        builds += writer.commit(rows, {LANE.key: batch.end}).index_builds
        if builds:
            break
        time.sleep(0.1)
    writer.close()
    [seconds] = builds
    assert 0 < seconds < 60


def test_settings_stay_with_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process knows none of the flow's secrets, but what Lance reads of the environment."""
    monkeypatch.setenv("HEADRACE_KAFKA__CLIENT__SASL_PASSWORD", "marker")
    monkeypatch.setenv("HEADRACE_AUTH__JWT_KEY", "marker")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    made = Remote(tmp_path)
    process = psutil.Process(made.writer.pid)
    environment, command = process.environ(), process.cmdline()
    made.writer.close()
    assert environment["AWS_REGION"] == "eu-central-1"
    assert not [name for name in environment if name.startswith("HEADRACE_")]
    assert "marker" not in " ".join([*command, *environment.values()])


def test_a_successor_finds_the_progress(tmp_path: Path) -> None:
    """What one process committed, the next one opens with."""
    first = Remote(tmp_path)
    first.commit(outcomes([embedding("a"), embedding("b")]))
    first.writer.close()
    assert gone(first.writer.pid)
    second = Remote(tmp_path)
    assert (second.writer.opened.progress, second.writer.opened.rows) == ({LANE.key: 2}, 3)
    second.writer.close()
    assert first.ends == second.ends == []


def test_chunks_cross_the_pipe(tmp_path: Path) -> None:
    """Documents of several rows shrink and grow in the other process as in this one."""
    remote = Remote(tmp_path, max_chunks=4)
    remote.commit(outcomes([embedding("a", "abcdefgh", 4)]))
    remote.commit(outcomes([embedding("a", "xyxy", 2)], 1))
    assert live(remote.store) == {("a", 0): "xyxy", ("a", 1): "xy"}
    remote.writer.close()


def routed_rows(store: RoutedStore, tables: int) -> pa.Table:
    """Some documents of each of several tables."""
    rows = [
        embedding(f"{number}", metadata=Fields(typed={TABLE: f"docs_{number % tables}"}))
        for number in range(20 * tables)
    ]
    return store.schema.rows(table_rows([outcomes(rows)]))


def test_several_tables(tmp_path: Path) -> None:
    """The process writes them all, and ends in good order while their indexes are made."""
    store = routed_in(tmp_path)
    store.ensure()
    writer = RemoteWriter.open(store, Upkeep(1 << 40, 1e9, text_index=True), 1)
    written = writer.commit(routed_rows(store, 30), {LANE.key: 600})
    assert written.rows == 600 + 30
    writer.close()
    assert writer.exit_code == 0
    assert store.progress([LANE.key]) == {LANE.key: 600}
    assert store.count() == 600


def test_a_table_that_is_gone_asks_for_a_start(tmp_path: Path) -> None:
    """The error of a writer that has mended its tables comes with the code that restarts."""
    store = routed_in(tmp_path)
    store.ensure()
    writer = RemoteWriter.open(store, NEVER, 1)
    writer.commit(routed_rows(store, 2), {LANE.key: 40})
    writer.close()
    shutil.rmtree(store.table("docs_0").path)
    with pytest.raises(WriterLostError, match=r"^table\.name: docs_0: gone from ") as told:
        RemoteWriter.open(store, NEVER, 1)
    assert told.value.exit_code == EXIT_STALLED
    RemoteWriter.open(store, NEVER, 1).close()


def test_a_table_that_is_missing_is_told(tmp_path: Path) -> None:
    """What keeps the table from opening is raised here, in the writer's own line."""
    with pytest.raises(SinkError, match=r"^table\.name: documents: can't open it in ") as told:
        RemoteWriter.open(store_in(tmp_path), NEVER, 1)
    assert told.value.exit_code == 1
    assert "\n" not in str(told.value)


def test_a_commit_that_fails_is_told(remote: Remote, tmp_path: Path) -> None:
    """What the writer finds while it commits is raised by the commit, and ends its process."""
    (tmp_path / "documents.lance").rename(tmp_path / "gone.lance")
    with pytest.raises(SinkError, match=r"^table\.") as told:
        remote.commit(outcomes([embedding("a")]))
    assert told.value.exit_code == 1
    assert "\n" not in str(told.value)
    assert remote.ends == []
    until(lambda: gone(remote.writer.pid))


def test_a_fault_is_told(remote: Remote) -> None:
    """A fault of ours comes back as one line, too."""
    progress: dict[Any, int] = {b"not a lane's key": 1}
    with pytest.raises(SinkError, match=r"^table commit: TypeError: "):
        remote.writer.commit(remote.store.schema.rows([]), progress)
    assert remote.ends == []


def test_a_second_copy_ends_an_idle_first(remote: Remote) -> None:
    """A writer that has nothing to commit notices its successor, and ends its worker."""
    remote.commit(outcomes([embedding("a")]))
    second = Table(remote.store)
    until(lambda: bool(remote.ends))
    [(message, code)] = remote.ends
    assert "a second copy of this flow writes it; this one ends" in message
    assert code == 1
    second.commit(outcomes([embedding("b")], 1))
    with pytest.raises(SinkError, match="a second copy"):
        remote.commit(outcomes([embedding("c")], 1))
    assert set(live(remote.store)) == {("a", 0), ("b", 0)}


def test_a_killed_writer_ends_an_idle_worker(remote: Remote) -> None:
    """Without its writer a worker ends at once, by a line and a code that say: start again."""
    os.kill(remote.writer.pid, signal.SIGKILL)
    until(lambda: bool(remote.ends))
    [(message, code)] = remote.ends
    assert message.startswith(f"headrace: table writer: process {remote.writer.pid} was killed")
    assert code == EXIT_STALLED
    with pytest.raises(WriterLostError):
        remote.commit(outcomes([embedding("a")]))


def test_a_writer_killed_within_a_commit_is_raised_by_it(remote: Remote) -> None:
    """The sink's own thread then ends the process, with the error's exit code."""
    os.kill(remote.writer.pid, signal.SIGSTOP)
    ends: list[tuple[str, int]] = []
    sink = TablePartitionSink(
        remote.writer, remote.store.schema, Pace(), Board(), Watchdog(), Metrics()
    )
    sink._committer._end = lambda *told: ends.append(told)
    sink.write_batch([(outcomes([embedding("a")]),)])
    until(lambda: remote.writer._waiting)
    os.kill(remote.writer.pid, signal.SIGKILL)
    until(lambda: bool(ends))
    [(message, code)] = ends
    assert "was killed by signal 9" in message
    assert code == EXIT_STALLED
    assert remote.ends == []
    sink.close()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_signals_to_the_group_leave_it_to_the_worker(remote: Remote, sent: signal.Signals) -> None:
    """What asks a whole service to end does not take the writer from a worker that drains."""
    os.kill(remote.writer.pid, sent)
    remote.commit(outcomes([embedding("a")]))
    remote.writer.close()
    assert live(remote.store) == {("a", 0): "some text"}
    assert remote.ends == []


def test_close_kills_what_does_not_end(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that hangs does not keep its worker from ending."""
    monkeypatch.setattr("sinks.remote.CLOSE_S", 0.2)
    os.kill(remote.writer.pid, signal.SIGSTOP)
    remote.writer.close()
    assert gone(remote.writer.pid)
    assert remote.ends == []


WORKER = """
    import os, sys, time
    from sinks.remote import RemoteWriter
    from tests.sinks.tables import NEVER, store_in
    store = store_in(sys.argv[1])
    store.ensure()
    writer = RemoteWriter.open(store, NEVER, 1)
    print(writer.pid, flush=True)
    time.sleep(60)
"""


def test_no_writer_outlives_a_killed_worker(tmp_path: Path) -> None:
    """A worker that is killed by -9 leaves no process behind."""
    command = [sys.executable, "-c", textwrap.dedent(WORKER), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        assert not gone(pid)
        worker.kill()
    until(lambda: gone(pid), 2.0)


def test_the_process_imports_nothing_of_the_model() -> None:
    """The writer stays small: no runtime, no tokenizer, no broker's client."""
    heavy = {"onnxruntime", "openvino", "tokenizers", "torch", "confluent_kafka", "bytewax"}
    program = "import sinks.process, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not heavy & set(done.stdout.split())


def test_waiting_leaves_the_interpreter_to_others(remote: Remote) -> None:
    """While a commit is under way, this process's other threads run on."""
    os.kill(remote.writer.pid, signal.SIGSTOP)
    sink = TablePartitionSink(
        remote.writer, remote.store.schema, Pace(), Board(), Watchdog(), Metrics()
    )
    sink.write_batch([(outcomes([embedding("a")]),)])
    until(lambda: remote.writer._waiting)
    before = time.thread_time()
    assert sum(range(100_000)) > 0
    assert time.thread_time() > before
    os.kill(remote.writer.pid, signal.SIGCONT)
    sink.close()
    assert live(remote.store) == {("a", 0): "some text"}
