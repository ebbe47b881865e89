from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from operators.records import RecordBatch
from sources.budget import InFlight, WorkerBudget
from tests.samples import LANE


def batch(start: int, records: int, gap: int = 0) -> RecordBatch:
    """Records and a gap behind them."""
    return RecordBatch(LANE, start, start + records + gap, range(start, start + records))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=20), st.data())
def test_counts_what_both_sinks_lack(batches: list[tuple[int, int]], data: st.DataObject) -> None:
    """It never counts less than what is on its way, and at most one batch more."""
    flight = InFlight()
    end = 0
    offsets: list[int] = []
    ends = [0]
    for records, gap in batches:
        fresh = batch(end, records, gap)
        flight.add(fresh)
        offsets += fresh.offsets
        end = fresh.end
        ends.append(end)
    settled = 0
    for _ in range(3):
        settled = data.draw(st.integers(settled, end))
        whole = max(e for e in ends if e <= settled)
        assert flight.settle(settled) == sum(offset >= whole for offset in offsets)
    assert flight.settle(end) == 0


def test_nothing_settled() -> None:
    """A sink that was not heard of has nothing."""
    flight = InFlight()
    flight.add(batch(0, 4))
    assert flight.settle(-1) == 4


@given(st.integers(1, 10_000), st.integers(0, 50))
def test_lanes_share_the_budget(records: int, lanes: int) -> None:
    """All lanes of a worker together keep the budget, but each may have one record."""
    budget = WorkerBudget(records)
    for _ in range(lanes):
        budget.join()
    assert budget.share >= 1
    assert budget.share * lanes <= max(records, lanes)
    assert budget.share == records or lanes > 1 or budget.share == 1
