from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import UsageError
from recovery.watchdog import EXIT_STALLED, Watchdog
from sinks.committer import Committer
from sinks.errors import SinkError
from tests.samples import until

if TYPE_CHECKING:
    from collections.abc import Sequence


class Recorder:
    """A commit that can be held up, and that remembers what it was given."""

    def __init__(self, fails: BaseException | None = None) -> None:
        self.commits: list[list[int]] = []
        self.ends: list[tuple[str, int]] = []
        self.go = threading.Event()
        self.entered = threading.Event()
        self.fails = fails

    def __call__(self, items: Sequence[int]) -> None:
        """Commit."""
        self.entered.set()
        assert self.go.wait(10)
        if self.fails is not None:
            raise self.fails
        self.commits.append(list(items))

    def end(self, message: str, code: int) -> None:
        """What would end the process."""
        self.ends.append((message, code))


def committer(
    recorder: Recorder, rows: int = 10, watchdog: Watchdog | None = None
) -> Committer[int]:
    """A committer of numbers that weigh what they are."""
    return Committer(
        "sink", recorder, lambda item: item, watchdog or Watchdog(), rows, end=recorder.end
    )


@settings(max_examples=40)
@given(st.lists(st.integers(0, 12), max_size=30), st.integers(1, 10))
def test_order_and_rows(items: list[int], rows: int) -> None:
    """Everything is committed once, in order, and only a single item may exceed the rows."""
    recorder = Recorder()
    queue = committer(recorder, rows)
    for item in items:
        queue.put(item)
    recorder.go.set()
    queue.close()
    assert [item for commit in recorder.commits for item in commit] == items
    assert all(sum(commit) <= rows or len(commit) == 1 for commit in recorder.commits)
    assert recorder.ends == []


def test_what_waits_shares_a_commit() -> None:
    """Items that came while a commit ran go together, up to the rows."""
    recorder = Recorder()
    queue = committer(recorder, rows=10)
    queue.put(1)
    assert recorder.entered.wait(5)
    for item in (4, 4, 4, 0, 20, 1):
        queue.put(item)
    recorder.go.set()
    queue.close()
    assert recorder.commits == [[1], [4, 4], [4, 0], [20], [1]]


def test_put_does_not_wait() -> None:
    """Bytewax's worker is never held up by a commit."""
    recorder = Recorder()
    queue = committer(recorder)
    started = time.monotonic()
    for item in range(1000):
        queue.put(item)
    assert time.monotonic() - started < 1
    assert recorder.commits == []
    recorder.go.set()
    queue.close()


def test_rests_after_a_commit() -> None:
    """The pause is asked how long the commit took, and what comes meanwhile goes together."""
    recorder = Recorder()
    recorder.go.set()
    took: list[float] = []

    def pause(seconds: float) -> float:
        took.append(seconds)
        return 0.3

    queue = Committer("sink", recorder, lambda _: 1, Watchdog(), 10, pause, end=recorder.end)
    queue.put(1)
    until(lambda: bool(took))
    queue.put(2)
    queue.put(3)
    assert recorder.commits == [[1]]
    started = time.monotonic()
    queue.close()
    assert recorder.commits == [[1], [2, 3]]
    assert time.monotonic() - started < 0.25  # closing ends the rest
    assert 0 <= took[0] < 5


def test_idle_is_called_while_nothing_is_queued() -> None:
    """About once a second, in the thread, and no more after closing."""
    calls: list[str] = []
    recorder = Recorder()
    queue = Committer(
        "sink",
        recorder,
        lambda _: 1,
        Watchdog(),
        10,
        idle=lambda: calls.append(threading.current_thread().name),
        end=recorder.end,
    )
    until(lambda: bool(calls))
    queue.close()
    assert set(calls) == {"sink"}
    assert len(calls) <= 3


def test_close_drains() -> None:
    """What is queued when the flow ends is committed before it has ended."""
    recorder = Recorder()
    recorder.go.set()
    queue = committer(recorder, rows=1)
    for _ in range(50):
        queue.put(1)
    queue.close()
    assert recorder.commits == [[1]] * 50
    queue.close()


def test_close_gives_up_in_time() -> None:
    """A commit that hangs does not keep a process from ending, and closing never raises."""
    recorder = Recorder()
    queue = committer(recorder)
    queue.put(1)
    started = time.monotonic()
    queue.close(timeout=0.2)
    assert time.monotonic() - started < 2
    recorder.go.set()


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (SinkError("table.uri: x: full"), "headrace: table.uri: x: full", 1),
        (UsageError("a: b"), "headrace: a: b", 2),
        (ValueError("one\ntwo"), "headrace: sink: ValueError: one two", 1),
        (KeyboardInterrupt(), "headrace: sink: KeyboardInterrupt: ", 1),
    ],
)
def test_a_failing_commit_ends_the_process(error: BaseException, message: str, code: int) -> None:
    """One line and the error's exit code; nothing behind it is committed."""
    recorder = Recorder(error)
    recorder.go.set()
    queue = committer(recorder, rows=1)
    queue.put(1)
    queue.put(1)
    until(lambda: bool(recorder.ends))
    queue.close()
    assert recorder.ends == [(message, code)]
    assert recorder.commits == []


def test_a_failing_idle_ends_the_process() -> None:
    """Upkeep that fails is told as a failing commit is."""
    recorder = Recorder()

    def fail() -> None:
        raise SinkError("table.uri: gone")

    Committer("sink", recorder, lambda _: 1, Watchdog(), 10, idle=fail, end=recorder.end)
    until(lambda: bool(recorder.ends))
    assert recorder.ends == [("headrace: table.uri: gone", 1)]


def test_the_watchdog_sees_a_slow_commit() -> None:
    """A commit that never ends, ends the process, by the sink's name."""
    recorder = Recorder()
    stalled: list[tuple[str, int]] = []
    watchdog = Watchdog(0.2, lambda *told: stalled.append(told))
    queue = committer(recorder, watchdog=watchdog)
    queue.put(1)
    until(lambda: bool(stalled))
    recorder.go.set()
    queue.close()
    message, code = stalled[0]
    assert message.startswith("headrace: sink made no progress")
    assert code == EXIT_STALLED == 75


def test_an_idle_thread_is_not_stalled() -> None:
    """Waiting for work is no stall."""
    stalled: list[tuple[str, int]] = []
    recorder = Recorder()
    recorder.go.set()
    queue = committer(recorder, watchdog=Watchdog(0.1, lambda *told: stalled.append(told)))
    queue.put(1)
    time.sleep(0.4)
    queue.close()
    assert stalled == []
