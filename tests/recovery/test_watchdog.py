from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from headrace.errors import UsageError
from recovery import watchdog as module
from recovery.watchdog import EXIT_STALLED, Watchdog, end_process, ending_of
from tests.samples import until


class Ends:
    """What would end the process."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def __call__(self, message: str, code: int) -> None:
        """End."""
        self.told.append((message, code))


def test_ends_by_the_name_of_what_takes_too_long() -> None:
    """Only a call over its limit ends the process, with the code that says: start again."""
    ends = Ends()
    watchdog = Watchdog(1000, ends)
    now = time.monotonic()
    with watchdog.busy("transaction of t/3"):
        watchdog.check(now + 999)
        assert ends.told == []
        watchdog.check(now + 1002)
    [(message, code)] = ends.told
    assert message.startswith("headrace: transaction of t/3 made no progress for 1000 s")
    assert "\n" not in message
    assert code == EXIT_STALLED == 75


def test_the_end_of_one_of_several_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line names the pipeline; without one it is as it always was."""
    ends = Ends()
    monkeypatch.setattr(module, "end_process", ends)
    watchdog = Watchdog(1000, ending_of("orders"))
    with watchdog.busy("table commit"):
        watchdog.check(time.monotonic() + 1002)

    @watchdog.ending
    def refuse() -> None:
        raise UsageError("table.name: x")

    with pytest.raises(UsageError):
        refuse()
    first, second = ends.told
    assert first[0].startswith("headrace: pipelines.orders: table commit made no progress")
    assert second == ("headrace: pipelines.orders: table.name: x", 2)
    monkeypatch.undo()
    assert ending_of("") is end_process


def test_a_call_that_ended_is_forgotten() -> None:
    """However a call ended, it is watched no more; one beside it still is."""
    ends = Ends()
    watchdog = Watchdog(1000, ends)
    with watchdog.busy("outer"):
        with pytest.raises(ValueError, match="inner"), watchdog.busy("inner"):
            raise ValueError("inner")
        watchdog.check(time.monotonic() + 2000)
    watchdog.check(time.monotonic() + 9000)
    assert [message.split()[1] for message, _ in ends.told] == ["outer"]


def test_a_clock_that_is_set_back_ends_it() -> None:
    """Set back by more than a moment, at whatever look; not one that goes on, ahead, or slowly."""
    ends = Ends()
    watchdog = Watchdog(1000, ends)
    now, wall = time.monotonic(), time.time()
    for passed, shown in ((1, 1), (2, 3602), (3, 3600), (4, 3597), (5, 3598)):
        watchdog.check_clock(now + passed, wall + shown)
    assert ends.told == []
    watchdog.check_clock(now + 6, wall + 6)
    [(message, code)] = ends.told
    assert "set back by 3593 s" in message
    assert code == EXIT_STALLED


def test_its_thread_looks_by_itself() -> None:
    """Nobody has to call it: a thread that waits for ever does not keep it from ending."""
    ends = Ends()
    watchdog = Watchdog(0.1, ends)
    release = threading.Event()

    def hang() -> None:
        with watchdog.busy("hang"):
            release.wait(10)

    thread = threading.Thread(target=hang)
    thread.start()
    until(lambda: bool(ends.told))
    release.set()
    thread.join()


def test_ends_the_process_at_once() -> None:
    """The process ends with its one line and code, though a thread of it can't be joined."""
    program = """
import threading, time
from recovery.watchdog import Watchdog, before_end
before_end(lambda: print("before", flush=True))
threading.Thread(target=time.sleep, args=(60,)).start()
try:
    with Watchdog(0.1).busy("commit"):
        time.sleep(60)
finally:
    print("unwound")
"""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 75
    assert "before\n" in done.stdout
    assert "unwound" not in done.stdout
    assert done.stderr.splitlines()[-1].startswith("headrace: commit made no progress")
    assert time.monotonic() - started < 20
