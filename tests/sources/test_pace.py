from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sources.pace import LEAST_RECORDS, MOST_RECORDS, MOST_S, WorkerPace

LEAST_S = 0.04


def run(
    pace: WorkerPace, steps: int, cost: float, waiting: int, *, lanes: int = 1, now: float = 0.0
) -> tuple[list[int], float]:
    """Steps of a worker with so many records waiting in each lane; how many it read in each."""
    read: list[int] = []
    left = [waiting] * lanes
    for _ in range(steps):
        total = 0
        for lane in range(lanes):
            taken = min(pace.room(lane, now), left[lane])
            left[lane] -= taken
            if taken:
                pace.took(taken, drained=left[lane] == 0)
            total += taken
        read.append(total)
        now += cost * total + 0.001
    return read, now


def test_a_backlog_is_read_in_ever_larger_steps() -> None:
    """While there is more, a step may take twice as long as the one before, up to the longest."""
    read, _ = run(WorkerPace(LEAST_S), 12, 0.0025, 100_000)
    assert read[0] == LEAST_RECORDS
    assert read == sorted(read)
    assert 0.8 * MOST_S <= read[-1] * 0.0025 <= MOST_S


def test_a_fresh_worker_takes_short_steps() -> None:
    """After all was read, a burst begins with a step of the least length again."""
    pace = WorkerPace(LEAST_S)
    _, now = run(pace, 10, 0.0025, 1_000)
    assert not pace.behind
    read, _ = run(pace, 3, 0.0025, 10_000, now=now)
    assert LEAST_RECORDS <= read[0] <= LEAST_S / 0.0025 + 1
    assert read[2] > read[0]
    assert pace.behind


def test_steps_end_with_the_epoch() -> None:
    """Once their length is known, the steps of a backlog overrun an epoch only by the shortest."""
    pace = WorkerPace(LEAST_S)
    now = began = 0.0
    overruns: list[float] = []
    while len(overruns) < 30:
        # As Bytewax does it: a read, then, if its time is over, the end of the epoch.
        taken = pace.room("lane", now)
        pace.took(taken, drained=False)
        if now - began >= 1.0:
            overruns.append(now - began - 1.0)
            pace.epoch_ended(now)
            began = now
        now += 0.0025 * taken + 0.001
    assert max(overruns[10:]) <= LEAST_S + 0.01
    assert max(overruns[:3]) > 2 * LEAST_S


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 5000), st.booleans(), st.floats(0, 3)),
        max_size=60,
    )
)
def test_every_lane_has_room_whatever_happened(
    steps: list[tuple[int, int, bool, float]],
) -> None:
    """No lane is ever shut out, and none gets more than a step may have."""
    pace = WorkerPace(LEAST_S)
    now = 0.0
    for lane, records, drained, took in steps:
        room = pace.room(lane, now)
        assert 1 <= room <= MOST_RECORDS
        pace.took(min(records, room), drained=drained)
        now += took
        if drained:
            pace.epoch_ended(now)


def test_lanes_share_a_step() -> None:
    """Two lanes with a backlog read half a step each."""
    alone, _ = run(WorkerPace(LEAST_S), 12, 0.0025, 100_000)
    both, _ = run(WorkerPace(LEAST_S), 12, 0.0025, 100_000, lanes=2)
    assert abs(both[-1] - alone[-1]) <= 4
