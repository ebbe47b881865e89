"""The table's writer as a worker sees it: a process of its own, at the other end of a pipe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import structlog

from recovery.watchdog import EXIT_STALLED, end_process
from sinks.errors import SinkError, WriterLostError
from sinks.protocol import Commit, Failed, Opened, Opening, Written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sinks.maintenance import Upkeep
    from sinks.routed import RoutedStore
    from sinks.store import TableStore

__all__ = ["RemoteWriter"]

log = structlog.get_logger(__name__)

CLOSE_S: Final = 10.0
"""How long the process may take to end when it is asked to."""

ALLOCATOR: Final = {"MALLOC_ARENA_MAX": "2"}
"""What the process has unless the environment says otherwise. With glibc's eight arenas a core it
kept 100 MiB more of what merges and indexes had used; commits take as long with two."""

SETTINGS: Final = "HEADRACE_"
"""How the names of settings begin in the environment."""

_ROOT: Final = Path(__file__).resolve().parent.parent


class RemoteWriter:
    """Writes a table through a process of its own, which lives no longer than this one.

    That process may find at any moment that it can't go on: a second copy of the flow has taken
    the table over, or somebody has killed it. This one then ends with that error, at once. So
    both are restarted together, and all of `recovery.progress` holds for the two as for one.

    Args:
        opening: What to open.
        end: What ends this process when nobody waits for an answer that could be an error.

    Raises:
        SinkError: The table can't be opened, or holds a key twice.
    """

    def __init__(self, opening: Opening, end: Callable[[str, int], None] = end_process) -> None:
        self._end = end
        self._answers: SimpleQueue[Opened | Written | SinkError] = SimpleQueue()
        self._state = threading.Lock()
        self._waiting = False
        self._closing = False
        self._pipe, theirs = Pipe()
        self._process = _start(theirs.fileno())
        theirs.close()
        self._listener = threading.Thread(target=self._listen, name="table writer", daemon=True)
        self._listener.start()
        try:
            opened = self._ask(opening)
        except SinkError:
            self.close()
            raise
        assert isinstance(opened, Opened)
        self.opened = opened

    @classmethod
    def open(
        cls,
        store: TableStore | RoutedStore,
        upkeep: Upkeep,
        max_chunks: int,
        end: Callable[[str, int], None] = end_process,
    ) -> RemoteWriter:
        """Start the process and open the table in it.

        Raises:
            SinkError: It can't be opened, or holds a key twice.
        """
        return cls(Opening(store, upkeep, max_chunks), end)

    @property
    def pid(self) -> int:
        """The writing process."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How that process has ended; None while it runs."""
        return self._process.returncode

    def commit(self, rows: pa.Table, progress: Mapping[str, int]) -> Written:
        """Merge rows and progress in one commit; waits without the interpreter's lock.

        Raises:
            SinkError: The table can't be written, another writer has taken it over, or the
                process has ended.
        """
        written = self._ask(Commit(_stream(rows), progress))
        assert isinstance(written, Written)
        return written

    def close(self) -> None:
        """End the process once it has finished what it is at; never raises."""
        with self._state:
            self._closing = True
        with suppress(OSError):
            self._pipe.send(None)
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            log.warning("table writer killed", stage="table", timeout_s=CLOSE_S)
            self._process.kill()
            self._process.wait()
        if self.exit_code:
            log.warning("table writer failed", stage="table", code=self.exit_code)
        self._listener.join()
        self._pipe.close()

    def _ask(self, request: Opening | Commit) -> Opened | Written:
        with self._state:
            self._waiting = True
        with suppress(OSError):  # it has ended, as `_listen` finds, too, and answers
            self._pipe.send(request)
        answer = self._answers.get()
        if isinstance(answer, SinkError):
            raise answer
        return answer

    def _listen(self) -> None:
        while True:
            try:
                answer = self._pipe.recv()
            except (EOFError, OSError):
                self._tell(self._lost())
                return
            if isinstance(answer, Failed):
                lost = answer.exit_code == WriterLostError.exit_code
                self._tell((WriterLostError if lost else SinkError)(answer.message))
                return
            with self._state:
                self._waiting = False
            self._answers.put(answer)

    def _tell(self, error: SinkError) -> None:
        """Raise an error where an answer is waited for; end the process where none is."""
        with self._state:
            waiting, closing = self._waiting, self._closing
            self._waiting = True  # whatever is asked from now on has this answer
        self._answers.put(error)
        if not waiting and not closing:
            self._end(f"headrace: {error}", error.exit_code)

    def _lost(self) -> WriterLostError:
        code = self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return WriterLostError(
            f"table writer: process {self.pid} {how}; exit {EXIT_STALLED}, start again to go on"
        )


def _stream(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    held: bytes = sink.getvalue().to_pybytes()
    return held


def _start(descriptor: int) -> subprocess.Popen[bytes]:
    # A process that is forked off would inherit librdkafka's and Lance's locks without threads.
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with _unsignalled():
        return subprocess.Popen(  # noqa: S603 - a fixed command line
            [sys.executable, "-m", "sinks.process", str(descriptor)],
            stdin=subprocess.DEVNULL,
            pass_fds=[descriptor],
            env={**ALLOCATOR, **_unsecret(os.environ), "PYTHONPATH": os.pathsep.join(paths)},
        )


def _unsecret(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without settings: some are secrets, and what it needs comes by the pipe."""
    return {name: value for name, value in environ.items() if not name.startswith(SETTINGS)}


@contextmanager
def _unsignalled() -> Iterator[None]:
    """Let a process started here never see the signals that ask a flow to end.

    Whoever stops a service or types Ctrl-C sends them to all of its processes. The writer must
    outlast them, until the worker has drained; it inherits what its starter's thread holds back.
    """
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
