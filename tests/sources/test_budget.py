from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from operators.records import RecordBatch
from sources.budget import READ_AHEAD_BYTES, Amount, InFlight, WorkerBudget, read_ahead
from tests.samples import LANE


def batch(start: int, records: int, gap: int = 0, size: int = 0) -> RecordBatch:
    """Records and a gap behind them."""
    end = start + records + gap
    return RecordBatch(LANE, start, end, range(start, start + records), size=size)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 999)), max_size=20),
    st.data(),
)
def test_counts_what_both_sinks_lack(
    batches: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    """It never counts less than what is on its way, and at most one batch more."""
    flight = InFlight()
    end = 0
    added: list[RecordBatch] = []
    for records, gap, size in batches:
        added.append(batch(end, records, gap, size))
        flight.add(added[-1])
        end = added[-1].end
    settled = 0
    for _ in range(3):
        settled = data.draw(st.integers(settled, end))
        left = [one for one in added if one.end > settled]
        expected = Amount(sum(map(len, left)), sum(one.size for one in left))
        assert flight.settle(settled) == expected
    assert flight.settle(end) == Amount(0, 0)


def test_nothing_settled() -> None:
    """A sink that was not heard of has nothing."""
    flight = InFlight()
    flight.add(batch(0, 4, size=9))
    assert flight.settle(-1) == Amount(4, 9)


@given(st.integers(1, 10_000), st.integers(1, 1 << 30), st.integers(0, 50))
def test_lanes_share_the_budget(records: int, size: int, lanes: int) -> None:
    """All lanes of a worker together keep the budget, but each may have one record."""
    budget = WorkerBudget(records, size)
    for _ in range(lanes):
        budget.join()
    share = budget.share
    assert min(share) >= 1
    assert share.records * lanes <= max(records, lanes)
    assert share.size * lanes <= max(size, lanes)
    if lanes <= 1:
        assert share == Amount(records, size)


@given(
    st.integers(1, 50),
    st.integers(1, 5000),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 8), st.integers(1, 900)), max_size=80),
    st.integers(1, 4),
    st.data(),
)
def test_a_worker_keeps_its_budget(
    records: int,
    size: int,
    reads: list[tuple[int, int, int]],
    lanes: int,
    data: st.DataObject,
) -> None:
    """Whatever is read and settled in which order, no lane exceeds its share by over a batch."""
    budget = WorkerBudget(records, size)
    for _ in range(lanes):
        budget.join()
    share = budget.share
    flights = [InFlight() for _ in range(lanes)]
    ends = [0] * lanes
    written = [0] * lanes
    for number, count, each in reads:
        lane = number % lanes
        written[lane] = data.draw(st.integers(written[lane], ends[lane]))
        flying = flights[lane].settle(written[lane])
        assert flying.records <= share.records
        assert flying.size < share.size + 8 * 900
        if not flying.exhausts(share):
            # As a reader does: never more records than there is room for.
            taken = min(count, share.records - flying.records)
            fresh = batch(ends[lane], taken, size=taken * each)
            flights[lane].add(fresh)
            ends[lane] = fresh.end


@given(st.integers(0, 100_000))
def test_lanes_share_what_is_read_ahead(lanes: int) -> None:
    """Up to 256 lanes read ahead no more than all may together; one never less than 256 KiB."""
    ahead = read_ahead(lanes)
    assert 256 << 10 <= ahead <= 4 << 20
    assert lanes > 256 or ahead * lanes <= READ_AHEAD_BYTES
