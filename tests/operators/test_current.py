from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from operators.current import CurrentRow, LaneView, rows_size

IDS = st.sampled_from("abcd")
TEXTS = st.none() | st.text(max_size=2)
STEPS = st.lists(st.tuples(IDS, TEXTS, st.integers(0, 3)), max_size=40)


@given(STEPS, st.sampled_from([0, 1200, 1 << 20]))
def test_never_forgets_what_the_table_may_lack(
    steps: list[tuple[str, str | None, int]], kept: int
) -> None:
    """It has each document of a record in flight, as the last one left it; others too, or not."""
    view = LaneView(kept, rows_size)
    written = 0
    last: dict[str, tuple[int, str | None]] = {}
    for end, (identity, text, settled) in enumerate(steps, start=1):
        written = min(end - 1, written + settled)
        view.advance(end, written)
        view.put({identity: None if text is None else CurrentRow(text, None)})
        last[identity] = (end, text)
        for other, (changed, expected) in last.items():
            assert other in view or changed <= written
            row = view.get(other)
            if other in view:
                assert (row.text if row else None) == expected


@given(STEPS)
def test_keeps_nothing_written_without_room(steps: list[tuple[str, str | None, int]]) -> None:
    """With no room to keep rows it has those in flight and no other."""
    view = LaneView(0, rows_size)
    written = 0
    last: dict[str, int] = {}
    for end, (identity, text, settled) in enumerate(steps, start=1):
        written = min(end - 1, written + settled)
        view.advance(end, written)
        assert {i for i in "abcd" if i in view} == {i for i, e in last.items() if e > written}
        view.put({identity: None if text is None else CurrentRow(text, None)})
        last[identity] = end


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=60), st.integers(0, 30_000))
def test_what_is_kept_is_bounded_by_bytes(sizes: list[int], kept: int) -> None:
    """However large rows are, those that both sinks have take no more than they may."""
    view = LaneView(kept, rows_size)
    for number, size in enumerate(sizes):
        view.advance(number + 1, number)
        held = [i for i in range(number) if str(i) in view]
        assert sum(sizes[i] for i in held) <= kept
        view.put({str(number): CurrentRow("x" * size, None)})
