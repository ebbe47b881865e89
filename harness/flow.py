"""The real flow in processes of its own, which can be killed, paused and restarted.

`Flow` runs `python -m bytewax.run` as a user does; `Supervised` adds what systemd or Kubernetes
does for a user, a restart whenever it ends.
"""

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil
from bytewax.recovery import init_db_dir

from harness.process import HOST, Child, HarnessError, Processes, free_port

__all__ = ["RECOVERY_PARTITIONS", "Flow", "Supervised"]

# Fixed for the life of a recovery folder: the most workers that a flow started here may have.
RECOVERY_PARTITIONS = 4
_POLL_S = 0.02
_WRITER = "sinks.process"


class Flow(Processes):
    """A flow of one or more processes, all on this machine, that never outlive their parent.

    As a context manager it is started on entry, ended by SIGTERM on exit. A flow that has ended
    can be started again, as it was or, for another number of workers, by another `Flow` on the
    same recovery folder.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        *,
        workers: int = 1,
        processes: int = 1,
        recovery: Path | None = None,
        snapshot_s: int = 10,
        backup_s: int = 0,
        log: Path | None = None,
        flow: str = "flows.embed",
    ) -> None:
        """Names what to run; nothing starts before `start`.

        Args:
            settings: Environment variables; no other `HEADRACE_*` reaches the flow.
            workers: Worker threads in each process.
            processes: Processes, joined to one cluster.
            recovery: Folder of Bytewax's recovery store, made when missing. None: no store.
            snapshot_s: Seconds between snapshots, whether or not there is a store for them.
            backup_s: Seconds that older snapshots are kept.
            log: Where standard output and error of all processes go, appended. None: a new
                temporary file.
            flow: The flow's module, as `bytewax.run` takes it.
        """
        super().__init__(log or _temporary_log())
        self.settings = dict(settings)
        self.recovery = recovery
        self._workers = workers
        self._processes = processes
        self._snapshot_s = snapshot_s
        self._backup_s = backup_s
        self._flow = flow

    @property
    def writers(self) -> list[int]:
        """The process ids of the table's writers: one, once the table's part is built."""
        found: list[int] = []
        for child in self._children:
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [
                    one.pid
                    for one in psutil.Process(child.pid).children()
                    if _WRITER in one.cmdline()
                ]
        return found

    def start(self) -> Self:
        """Starts it, without waiting for its first record.

        Raises:
            HarnessError: It runs already.
        """
        if any(child.alive for child in self._children):
            raise HarnessError(f"flow {self._flow}: already running as {self.pids}")
        self._make_recovery()
        self._run(self._commands(), self.settings)
        return self

    def kill(self, process: int | None = None) -> list[int | None]:
        """Ends by -9 all processes, or only the one of that index.

        Returns:
            The exit codes.
        """
        for child in self._chosen(process):
            child.kill()
        return self.exit_codes

    def kill_writer(self) -> bool:
        """Ends by -9 the table's writer alone; whether there was one."""
        writers = self.writers
        for pid in writers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(writers)

    def pause(self, process: int | None = None) -> None:
        """Makes all processes, or the one of that index, hang until `resume`."""
        for child in self._chosen(process):
            child.pause()

    def resume(self, process: int | None = None) -> None:
        """Lets all processes, or the one of that index, go on after `pause`."""
        for child in self._chosen(process):
            child.resume()

    def wait(self, timeout_s: float | None = None) -> list[int]:
        """Waits until all processes have ended.

        Returns:
            The exit codes.

        Raises:
            HarnessError: One still runs after `timeout_s` seconds.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        return [
            child.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
            for child in self._children
        ]

    def log_text(self) -> str:
        """Reads what all processes, of all starts, have printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.terminate()

    def _chosen(self, process: int | None) -> Sequence[Child]:
        return self._children if process is None else (self._children[process],)

    def _make_recovery(self) -> None:
        if self.recovery is None or any(self.recovery.glob("*.sqlite3")):
            return
        self.recovery.mkdir(mode=0o700, parents=True, exist_ok=True)
        init_db_dir(self.recovery, RECOVERY_PARTITIONS)

    def _commands(self) -> list[list[str | Path]]:
        common: list[str | Path] = [sys.executable, "-m", "bytewax.run", self._flow]
        common += ["-w", str(self._workers), "-s", str(self._snapshot_s)]
        if self.recovery is not None:
            common += ["-r", self.recovery.resolve(), "-b", str(self._backup_s)]
        if self._processes == 1:
            return [common]
        addresses = ";".join(f"{HOST}:{free_port()}" for _ in range(self._processes))
        return [[*common, "-i", str(i), "-a", addresses] for i in range(self._processes)]


class Supervised:
    """A flow that is started again whenever one of its processes ends, until `stop`.

    As a context manager it is started on entry, stopped on exit.
    """

    def __init__(self, flow: Flow, *, delay_s: float = 0.2) -> None:
        """Takes charge of a flow that does not run yet.

        Args:
            flow: The flow.
            delay_s: Seconds between an end and the restart.
        """
        self.flow = flow
        self.exits: list[list[int | None]] = []
        self._delay_s = delay_s
        self._stopping = threading.Event()
        # Held while processes come and go, so that a kill never meets half a start.
        self._changing = threading.RLock()
        self._thread = threading.Thread(target=self._watch, name="harness-supervisor", daemon=True)

    @property
    def restarts(self) -> int:
        """How often the flow has been started again."""
        return len(self.exits)

    @property
    def alive(self) -> bool:
        """Whether the flow runs at this moment."""
        return self.flow.alive

    def start(self) -> Self:
        """Starts the flow and the watch over it."""
        self.flow.start()
        self._thread.start()
        return self

    def kill(self, process: int | None = None) -> None:
        """Ends by -9 all processes, or the one of that index; a restart follows."""
        with self._changing:
            self.flow.kill(process)

    def kill_writer(self) -> bool:
        """Ends by -9 the table's writer alone, and with it its worker; a restart follows."""
        with self._changing:
            return self.flow.kill_writer()

    def end(self, grace_s: float = 60) -> list[int]:
        """Ends all processes by SIGTERM; a restart follows.

        Returns:
            The exit codes; -9 for a process that had to be killed.
        """
        with self._changing:
            return self.flow.terminate(grace_s)

    def pause(self, process: int | None = None) -> None:
        """Makes all processes, or the one of that index, hang until `resume`."""
        with self._changing:
            self.flow.pause(process)

    def resume(self, process: int | None = None) -> None:
        """Lets them go on after `pause`."""
        with self._changing:
            self.flow.resume(process)

    def stop(self, grace_s: float = 20) -> list[int]:
        """Ends the watch, then the flow by SIGTERM.

        Returns:
            The exit codes of the last run; -9 for a process that had to be killed.
        """
        self.leave()
        return self.flow.terminate(grace_s)

    def leave(self) -> None:
        """Ends the watch and lets the flow run on, unsupervised."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def log_text(self) -> str:
        """Reads what all processes, of all starts, have printed."""
        return self.flow.log_text()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _watch(self) -> None:
        while not self._stopping.wait(_POLL_S):
            if not self.flow.alive and not self._stopping.wait(self._delay_s):
                with self._changing:
                    self._restart()

    def _restart(self) -> None:
        # What is left of a cluster that lost a process does not recover: all start anew.
        codes = self.flow.exit_codes
        self.flow.kill()
        self.exits.append(codes)
        self.flow.start()


def _temporary_log() -> Path:
    handle, name = tempfile.mkstemp(prefix="headrace-flow-", suffix=".log")
    os.close(handle)
    return Path(name)
