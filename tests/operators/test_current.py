from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from operators.current import CurrentRow, LaneView

IDS = st.sampled_from("abcd")


@given(st.integers(1, 6), st.lists(st.tuples(IDS, st.none() | st.text(max_size=2)), max_size=40))
def test_knows_exactly_what_can_be_in_flight(
    in_flight: int, records: list[tuple[str, str | None]]
) -> None:
    """It has each document that one of the last `in_flight` records touched, and no other."""
    view = LaneView(in_flight)
    for index, (identity, text) in enumerate(records):
        view.advance(1)
        view.put(identity, None if text is None else CurrentRow(text, None))
        recent = dict(records[max(0, index + 1 - in_flight) : index + 1])
        for other in "abcd":
            assert (other in view) == (other in recent)
            row = view.get(other)
            assert (row.text if row else None) == recent.get(other)


@given(st.lists(st.tuples(IDS, st.integers(1, 5)), max_size=20))
def test_records_that_touch_nothing_count(records: list[tuple[str, int]]) -> None:
    """Dead letters move the view on too: its bound is on records, not on documents."""
    view = LaneView(3)
    for identity, after in records:
        view.advance(1)
        view.put(identity, None)
        view.advance(after)
        assert (identity in view) == (after < 3)
        assert view.get(identity) is None
