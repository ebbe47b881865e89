from __future__ import annotations

import threading
from datetime import timedelta
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
from operators.window import Window, Windows, window
from tests.samples import gappy_batches, outcomes, tombstone

WAIT = timedelta(milliseconds=20)
LANES = (Lane("t", 0), Lane("t", 1))
NUDGE = OutcomeBatch(LANES[0], 0, 0, 0, nudge=True)


class WindowMachine(RuleBasedStateMachine):
    """The windows of two lanes, beside plain lists of what went in and came out."""

    @initialize(rows=st.integers(1, 7))
    def begin(self, rows: int) -> None:
        """Make windows with a clock of our own, in seconds."""
        self.now = 0
        self.rows = rows
        self.windows = Windows(rows, timedelta(seconds=20), lambda: self.now)
        self.given: dict[Lane, list[OutcomeBatch]] = {lane: [] for lane in LANES}
        self.came: dict[Lane, list[Window]] = {lane: [] for lane in LANES}
        self.count = dict.fromkeys(LANES, 0)
        self.opened: dict[Lane, int] = {}

    @rule(data=st.data(), chosen=st.lists(st.sampled_from(LANES), min_size=1, max_size=4))
    def arrive(self, data: st.DataObject, chosen: list[Lane]) -> None:
        """Some batches of either lane come at once."""
        fresh = []
        for lane in chosen:
            given = self.given[lane]
            batch = data.draw(gappy_batches(first=given[-1].end if given else 0, lane=lane))
            given.append(batch)
            fresh.append(batch)
            self.expect(lane, len(batch))
        self.take(self.windows(fresh))

    def expect(self, lane: Lane, records: int) -> None:
        """Whether the lane has an open window after so many more records, and since when."""
        full, self.count[lane] = divmod(self.count[lane] + records, self.rows)
        if full:
            self.opened.pop(lane, None)
        if self.count[lane] or not full:
            self.opened.setdefault(lane, self.now)

    @rule(seconds=st.integers(1, 30))
    def pass_time(self, seconds: int) -> None:
        """Time passes; the source nudges when a window is due."""
        self.now += seconds
        due = {lane for lane, at in self.opened.items() if at + 20 <= self.now}
        assert self.windows.due() == bool(due)
        if due:
            closed = self.windows([NUDGE])
            assert {one[0].lane for _, one in closed} == due
            self.take(closed)
            for lane in due:
                self.opened.pop(lane)
                self.count[lane] = 0

    @precondition(lambda self: self.opened)
    @rule()
    def end(self) -> None:
        """Once the longest wait is over, everything is out."""
        self.now += 20
        assert not self.windows.empty()
        self.take(self.windows([NUDGE]))
        self.opened.clear()
        self.count = dict.fromkeys(LANES, 0)
        assert self.windows.empty()
        for lane, given in self.given.items():
            assert self.offsets(lane) == [o for batch in given for o in batch.offsets]
            assert not given or self.came[lane][-1][-1].end == given[-1].end

    def take(self, closed: list[tuple[str, Window]]) -> None:
        """Note what came out."""
        for key, one in closed:
            assert key == one[0].lane.key
            self.came[one[0].lane].append(one)

    def offsets(self, lane: Lane) -> list[int]:
        """The offsets that came out."""
        return [o for full in self.came[lane] for batch in full for o in batch.offsets]

    @invariant()
    def keeps_rows_and_time(self) -> None:
        """No window is larger than allowed, and none is open that was due."""
        assert all(count(full) <= self.rows for came in self.came.values() for full in came)
        assert all(at + 20 > self.now for at in self.opened.values())
        assert self.windows.empty() == (not self.opened)

    @invariant()
    def keeps_order_and_seam(self) -> None:
        """What came out of a lane is what went in, joined without a seam."""
        for lane, given in self.given.items():
            pieces = [batch for full in self.came[lane] for batch in full]
            assert all(left.end == right.start for left, right in pairwise(pieces))
            came_in = [offset for batch in given for offset in batch.offsets]
            out = self.offsets(lane)
            assert out == came_in[: len(out)]
            assert len(came_in) - len(out) < self.rows
            assert not pieces or pieces[0].start == given[0].start


WindowMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
TestWindow = WindowMachine.TestCase


def test_a_drained_lane_waits_for_nobody() -> None:
    """Behind a batch after which nothing was left to read the window closes at once."""
    windows = Windows(5, WAIT)
    first, last = outcomes([tombstone("a")]), outcomes([tombstone("b")], 1, drained=True)
    assert windows([first, last]) == [(first.lane.key, (first, last))]
    assert windows.empty()


def test_batches_without_records_go_through() -> None:
    """Progress passes over gaps: a batch without records comes out when the time is over."""
    now = [0.0]
    windows = Windows(5, WAIT, lambda: now[0])
    gap = outcomes([], start=3, end=9)
    assert windows([gap]) == []
    now[0] = 0.02
    assert windows.due()
    assert windows([NUDGE]) == [(gap.lane.key, (gap,))]


def test_a_nudge_is_no_batch() -> None:
    """What only asks for windows that are due never comes out, and opens none."""
    windows = Windows(1, WAIT)
    assert windows([NUDGE]) == []
    assert windows.empty()


def test_at_the_end_no_window_waits() -> None:
    """Once nothing more is read, open windows are due, and so is what still comes."""
    windows = Windows(5, timedelta(hours=1))
    first, second = outcomes([tombstone("a")]), outcomes([tombstone("b")], 1)
    assert windows([first]) == []
    assert not windows.due()
    windows.release()
    assert windows.due()
    assert windows([NUDGE]) == [(first.lane.key, (first,))]
    assert windows.empty()
    assert not windows.due()
    assert windows([second]) == [(second.lane.key, (second,))]


def test_each_worker_has_windows_of_its_own() -> None:
    """One worker's batches never come out at another's, nor keep that one waiting."""
    windows = Windows(5, timedelta(0))
    windows([outcomes([tombstone("a")])])

    def other() -> None:
        seen.extend([windows.empty(), windows.due(), windows([NUDGE])])

    seen: list[object] = []
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [True, False, []]


def run(batches: list[Any], rows: int, wait: timedelta, workers: int) -> list[Window]:
    """Windows that the operator gives in a real dataflow."""
    out: list[Window] = []
    flow = Dataflow("windows")
    stream = op.input("in", flow, TestingSource(batches))
    closed = window("window", stream, Windows(rows, wait))
    plain = op.map("plain", closed, lambda item: item[1])
    op.output("out", plain, TestingSink(out))
    if workers:
        cluster_main(flow, [], 0, worker_count_per_proc=workers)
    else:
        run_main(flow)
    return out


def batch_of(size: int, first: int, lane: Lane) -> OutcomeBatch:
    """A batch of so many records."""
    return outcomes([tombstone(f"{first + i}") for i in range(size)], first, lane=lane)


@pytest.mark.parametrize("workers", [0, 2])
def test_closes_by_rows_and_time_in_a_dataflow(workers: int) -> None:
    """In a dataflow, each lane's windows fill to the limit, and a later nudge lets the rest out."""
    batches: list[Any] = [batch_of(3, 3 * i, lane) for i in range(3) for lane in LANES]
    batches += [TestingSource.PAUSE(timedelta(seconds=0.2)), NUDGE]
    out = run(batches, 4, timedelta(milliseconds=100), workers)
    for lane in LANES:
        own = [full for full in out if full[0].lane == lane]
        assert [count(full) for full in own] == [4, 4, 1]
        assert [o for full in own for batch in full for o in batch.offsets] == list(range(9))
