import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from harness.process import ROOT, Child, HarnessError, free_port, is_free, tail

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends orphans")


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Child]:
    """A process that does nothing for long."""
    with Child(["sleep", "600"], log=tmp_path / "log") as child:
        yield child


def wait_until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    """Waits for what another process does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether a process has ended, waited for or not."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_output_goes_to_the_log(tmp_path: Path) -> None:
    """Standard output and error both end in the log file."""
    with Child(
        ["sh", "-c", "echo one; echo two >&2; exit 3"], log=tmp_path / "new" / "log"
    ) as child:
        assert child.wait(10) == 3
    assert tail(child.log) == "one\ntwo"


def test_kill_reports_the_signal(sleeper: Child) -> None:
    """The exit code tells a kill from an end."""
    assert sleeper.alive
    assert sleeper.exit_code is None
    assert sleeper.kill() == -9
    assert not sleeper.alive


def test_wait_gives_up(sleeper: Child) -> None:
    """Waiting with a limit says which process still runs."""
    with pytest.raises(HarnessError, match=f"process {sleeper.pid}: still running"):
        sleeper.wait(0.05)


def test_a_paused_process_ends_in_good_order(sleeper: Child) -> None:
    """SIGTERM reaches a process that hangs, without the kill after the grace."""
    sleeper.pause()
    wait_until(lambda: psutil.Process(sleeper.pid).status() == psutil.STATUS_STOPPED)
    assert sleeper.terminate(grace_s=10) == -15


def test_a_deaf_process_is_killed(tmp_path: Path) -> None:
    """A process that ignores SIGTERM is killed after the grace."""
    command = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"]
    with Child(command, log=tmp_path / "log") as child:
        wait_until(lambda: tail(child.log) == "ready")
        assert child.terminate(grace_s=0.2) == -9


@linux_only
def test_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    """The tie is to the parent process, not to the thread that happened to start the child."""
    started: list[Child] = []
    thread = threading.Thread(
        target=lambda: started.append(Child(["sleep", "600"], log=tmp_path / "log")),
    )
    thread.start()
    thread.join()
    with started[0] as child:
        time.sleep(0.2)
        assert child.alive


@linux_only
@pytest.mark.parametrize("signal", ["-9", "-15", "-2"])
def test_dies_with_its_parent(tmp_path: Path, signal: str) -> None:
    """However the parent ends, the child is gone soon after."""
    script = (
        "import signal, time; from pathlib import Path; from harness.process import Child;"
        # A shell has what it starts in the background ignore SIGINT, and children inherit that.
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        f"print(Child(['sleep', '600'], log=Path({str(tmp_path / 'log')!r})).pid, flush=True);"
        "time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as parent:
        assert parent.stdout is not None
        orphan = int(parent.stdout.readline())
        assert psutil.pid_exists(orphan)
        subprocess.run(["kill", signal, str(parent.pid)], check=True)
        parent.wait(10)
    wait_until(lambda: gone(orphan))


def test_free_ports_stay_out_of_the_kernels_range() -> None:
    """A server's port can't be given to an outgoing connection while the server is down."""
    ports = [free_port() for _ in range(20)]
    assert all(15_000 <= port < 32_768 for port in ports)
    assert all(is_free(port) for port in ports)


def test_tail_of_a_missing_log(tmp_path: Path) -> None:
    """A process that printed nothing has an empty tail, so that errors can quote it always."""
    assert not tail(tmp_path / "none")
