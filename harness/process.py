"""Child processes that can be killed, paused, waited for, and that never outlive their parent.

```text
headrace.errors.HeadraceError
└── HarnessError              a process or a port that is not as it must be
```
"""

import atexit
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from headrace.errors import HeadraceError

__all__ = [
    "HOST",
    "ROOT",
    "Child",
    "HarnessError",
    "Processes",
    "bare_environment",
    "free_port",
    "is_free",
    "java",
    "tail",
]

HOST = "127.0.0.1"
ROOT = Path(__file__).resolve().parent.parent
_TETHER = Path(__file__).with_name("tether.py")

# The kernel's promise to end a child is tied to the thread that started it, so all children are
# started by one thread that lives as long as the interpreter.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="harness-starter")
_children: "weakref.WeakSet[Child]" = weakref.WeakSet()


class HarnessError(HeadraceError):
    """A process that did not start or end, or a port that is taken."""


class Child:
    """A running command, with its output in a log file, in a process group of its own.

    The group keeps Ctrl-C in a terminal from reaching the child before its owner, which ends its
    children in the right order.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path = ROOT,
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        tether = (sys.executable, "-I", "-S", _TETHER, str(os.getpid()))
        with log.open("ab") as out:
            self._process = _starter.submit(
                subprocess.Popen,
                [*tether, *command],
                cwd=folder,
                env=None if environment is None else dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ).result()
        self.log = log
        _children.add(self)

    @property
    def pid(self) -> int:
        """The process id of the command itself."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs (or is paused)."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code, minus the signal that killed it, or None while it runs."""
        return self._process.poll()

    def send(self, sent: signal.Signals) -> None:
        """Sends a signal to the command and its own children, if it still runs."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, sent)

    def pause(self) -> None:
        """Stops it from running, as a machine that hangs does, until `resume`."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it run on."""
        self.send(signal.SIGCONT)

    def kill(self) -> int:
        """Ends it by -9.

        Returns:
            Its exit code.
        """
        self.send(signal.SIGKILL)
        return self._process.wait()

    def ask_to_end(self) -> None:
        """Sends SIGTERM, which also reaches a paused process."""
        self.send(signal.SIGTERM)
        self.resume()

    def terminate(self, grace_s: float = 20) -> int:
        """Asks it to end, and kills it if it does not within `grace_s` seconds.

        Returns:
            Its exit code.
        """
        self.ask_to_end()
        return self.wait_or_kill(grace_s)

    def wait_or_kill(self, grace_s: float) -> int:
        """Waits until it has ended, and kills it if that takes over `grace_s` seconds.

        Returns:
            Its exit code.
        """
        try:
            return self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            return self.kill()

    def wait(self, timeout_s: float | None = None) -> int:
        """Waits until it has ended.

        Returns:
            Its exit code.

        Raises:
            HarnessError: It still runs after `timeout_s` seconds.
        """
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise HarnessError(f"process {self.pid}: still running after {timeout_s} s") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Processes:
    """Children that run side by side and print to one log.

    Attributes:
        log: That log.
        code: The checkout whose modules they run.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.code = ROOT
        self._children: tuple[Child, ...] = ()

    @property
    def alive(self) -> bool:
        """Whether all of them run (or are paused)."""
        return bool(self._children) and all(child.alive for child in self._children)

    @property
    def pids(self) -> list[int]:
        """The process ids of the last start."""
        return [child.pid for child in self._children]

    @property
    def exit_codes(self) -> list[int | None]:
        """Of each process the exit code, minus the signal that killed it, None while it runs."""
        return [child.exit_code for child in self._children]

    def terminate(self, grace_s: float = 20) -> list[int]:
        """Asks all processes to end, and kills those that do not within `grace_s` seconds.

        Returns:
            The exit codes; -9 for one that had to be killed.
        """
        # A cluster only ends in good order when all of its processes are asked at once.
        for child in self._children:
            child.ask_to_end()
        deadline = time.monotonic() + grace_s
        return [
            child.wait_or_kill(max(0.0, deadline - time.monotonic())) for child in self._children
        ]

    def _run(self, commands: Sequence[Sequence[str | Path]], settings: Mapping[str, str]) -> None:
        environment = {**bare_environment(), "PYTHONUNBUFFERED": "1", **settings}
        self._children = tuple(
            Child(command, log=self.log, environment=environment, folder=self.code)
            for command in commands
        )


def bare_environment() -> dict[str, str]:
    """The environment without settings, which may name somebody's real Kafka or collector."""
    ours = ("HEADRACE_", "BYTEWAX_", "OTEL_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def java() -> str:
    """The `java` of JAVA_HOME, or else of PATH.

    Raises:
        HarnessError: There is none.
    """
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home, "bin", "java")) if home else shutil.which("java")
    if found is None or not Path(found).exists():
        raise HarnessError("java: not found on PATH or in JAVA_HOME; install Java 17 or newer")
    return found


def is_free(port: int) -> bool:
    """Says whether a server could listen on the loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """Finds a loopback port for a server that may be killed and come back on it.

    It lies below the ports that the kernel gives to outgoing connections. In that range, a client
    that knocks at the dead server's port again and again could be given the very port it knocks
    at, be connected to itself, and keep the server from coming back.

    Raises:
        HarnessError: None of many tried ports is free.
    """
    for port in random.sample(range(15_000, 32_000), 100):
        if is_free(port):
            return port
    raise HarnessError("ports 15000 to 32000: none of 100 tried is free")


def tail(log: Path, lines: int = 20) -> str:
    """Reads the last lines of a log file; empty where there is none."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


@atexit.register
def _end_children() -> None:
    """Ends what is left where the kernel does not, which is everywhere but on Linux."""
    for child in list(_children):
        child.kill()
