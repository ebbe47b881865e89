from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, cluster_main, run_main
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from operators.records import Lane, OutcomeBatch, count
from operators.window import Window, WindowLogic, window
from tests.samples import gappy_batches, outcomes, tombstone

WAIT = timedelta(milliseconds=20)


class WindowMachine(RuleBasedStateMachine):
    """A window as Bytewax drives it, beside a plain list of what went in and came out."""

    @initialize(rows=st.integers(1, 7))
    def begin(self, rows: int) -> None:
        """Make a window with a clock of our own."""
        self.now = datetime(2025, 1, 1, tzinfo=UTC)
        self.rows = rows
        self.logic = WindowLogic(rows, WAIT, lambda: self.now)
        self.given: list[OutcomeBatch] = []
        self.came: list[Window] = []
        self.opened: datetime | None = None

    @rule(data=st.data(), several=st.integers(1, 3))
    def arrive(self, data: st.DataObject, several: int) -> None:
        """Some batches come at once."""
        fresh = []
        for _ in range(several):
            start = self.given[-1].end if self.given else 0
            batch = data.draw(gappy_batches(first=start))
            self.given.append(batch)
            fresh.append(batch)
        waited = self.logic.notify_at()
        windows, discard = self.logic.on_batch(fresh)
        windows = list(windows)
        assert not discard
        self.came += windows
        if windows or waited is None:
            self.opened = self.now if self.logic.notify_at() else None
        for full in windows:
            assert count(full) == self.rows

    @rule(milliseconds=st.integers(1, 30))
    def pass_time(self, milliseconds: int) -> None:
        """Time passes; Bytewax calls when the window asked to be called."""
        self.now += timedelta(milliseconds=milliseconds)
        due = self.logic.notify_at()
        if due is not None and due <= self.now:
            windows, discard = self.logic.on_notify()
            assert not discard
            self.came += list(windows)
            self.opened = None

    @precondition(lambda self: self.given)
    @rule()
    def end(self) -> None:
        """The stream stops: everything is out."""
        windows, _ = self.logic.on_eof()
        self.came += list(windows)
        self.opened = None
        assert self.out_offsets() == [o for batch in self.given for o in batch.offsets]
        assert self.came[-1][-1].end == self.given[-1].end

    @invariant()
    def keeps_rows_and_time(self) -> None:
        """No window is larger or older than allowed, and its clock is that of its first batch."""
        assert all(0 <= count(full) <= self.rows for full in self.came)
        closes = self.logic.notify_at()
        assert closes == (None if self.opened is None else self.opened + WAIT)
        assert closes is None or closes > self.now - WAIT

    @invariant()
    def keeps_order_and_seam(self) -> None:
        """What came out is what went in, joined without a seam."""
        pieces = [batch for full in self.came for batch in full]
        assert all(left.end == right.start for left, right in pairwise(pieces))
        given = [offset for batch in self.given for offset in batch.offsets]
        out = self.out_offsets()
        assert out == given[: len(out)]
        assert len(given) - len(out) < self.rows
        if pieces:
            assert pieces[0].start == self.given[0].start

    def out_offsets(self) -> list[int]:
        """The offsets that came out."""
        return [offset for full in self.came for batch in full for offset in batch.offsets]


WindowMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
TestWindow = WindowMachine.TestCase


def test_snapshot_is_empty() -> None:
    """A restart reads again what a sink lacks, so nothing that is held may come back."""
    logic = WindowLogic(5, WAIT)
    logic.on_batch([outcomes([tombstone("a")])])
    # The type says so already; a snapshot that grows must fail here.
    assert logic.snapshot() is None  # type: ignore[func-returns-value]


def test_a_drained_lane_waits_for_nobody() -> None:
    """Behind a batch after which nothing was left to read the window closes at once."""
    logic = WindowLogic(5, WAIT)
    first, last = outcomes([tombstone("a")]), outcomes([tombstone("b")], 1, drained=True)
    windows, _ = logic.on_batch([first, last])
    assert list(windows) == [(first, last)]
    assert logic.notify_at() is None


def test_batches_without_records_go_through() -> None:
    """Progress passes over gaps: a batch without records comes out when the time is over."""
    logic = WindowLogic(5, WAIT)
    gap = outcomes([], start=3, end=9)
    windows, _ = logic.on_batch([gap])
    assert list(windows) == []
    assert logic.notify_at() is not None
    windows, _ = logic.on_notify()
    assert list(windows) == [(gap,)]


def run(
    batches: list[Any], rows: int, wait: timedelta, workers: int = 0
) -> list[tuple[float, Window]]:
    """Windows that the real operator gives in a dataflow, and when."""
    out: list[tuple[float, Window]] = []
    flow = Dataflow("windows")
    stream = op.input("in", flow, TestingSource(batches))
    lanes = op.key_on("lane", stream, lambda batch: batch.lane.key)
    closed = window("window", lanes, rows, wait)
    timed = op.map("time", closed, lambda item: (time.monotonic(), item[1]))
    op.output("out", timed, TestingSink(out))
    if workers:
        cluster_main(flow, [], 0, worker_count_per_proc=workers)
    else:
        run_main(flow)
    return out


def batch_of(size: int, first: int, lane: Lane) -> OutcomeBatch:
    """A batch of so many records."""
    return outcomes([tombstone(f"{first + i}") for i in range(size)], first, lane=lane)


@pytest.mark.parametrize("workers", [0, 2])
def test_closes_by_time_while_the_stream_is_quiet(workers: int) -> None:
    """In a dataflow, a window closes when its time is over though nothing more arrives."""
    lane = Lane("t", 0)
    quiet = timedelta(seconds=1)
    batches = [
        batch_of(2, 0, lane),
        batch_of(1, 2, lane),
        TestingSource.PAUSE(quiet),
        batch_of(1, 3, lane),
    ]
    (first, early), (second, late) = run(batches, 100, timedelta(milliseconds=50), workers)
    assert [count(early), count(late)] == [3, 1]
    assert second - first > 0.5


def test_closes_by_rows_and_at_the_end() -> None:
    """In a dataflow, each lane's windows fill to the limit, and the end lets the rest out."""
    lanes = [Lane("t", 0), Lane("t", 1)]
    batches = [batch_of(3, 3 * i, lane) for i in range(3) for lane in lanes]
    out = [full for _, full in run(list(batches), 4, timedelta(hours=1))]
    for lane in lanes:
        own = [full for full in out if full[0].lane == lane]
        assert [count(full) for full in own] == [4, 4, 1]
        assert [o for full in own for batch in full for o in batch.offsets] == list(range(9))
