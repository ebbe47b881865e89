from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from operators.records import Lane
from sinks.rows import Stamp, row_key, table_rows
from sinks.schema import FENCE_KEY
from tests.samples import Row, dead_letter, embedding, outcomes, tombstone


@given(st.sets(st.tuples(st.text(), st.integers(0, 40)), max_size=30))
def test_keys_are_apart(rows: set[tuple[str, int]]) -> None:
    """Each document's chunk has a key of 16 bytes of its own, none that of the fence row."""
    keys = {row_key(*row) for row in rows}
    assert len(keys) == len(rows)
    assert all(len(key) == 16 for key in keys)
    assert FENCE_KEY not in keys


WRITES = st.one_of(
    st.builds(embedding, st.sampled_from("abc"), time_ms=st.integers(0, 3)),
    st.builds(embedding, st.sampled_from("abc"), st.just("abcdefghi"), st.integers(2, 3)),
    st.builds(tombstone, st.sampled_from("abc"), st.integers(0, 3)),
    st.builds(dead_letter),
)
LANES = [Lane("s", 0), Lane("s", 1), Lane("t", 1)]


@given(st.lists(st.tuples(st.sampled_from(LANES), st.lists(WRITES, max_size=5)), max_size=8))
def test_each_key_has_the_row_of_its_winning_write(parts: list[tuple[Lane, list[Row]]]) -> None:
    """Of all writes of a document in a commit one wins, and it alone has rows: all its chunks."""
    next_offset = dict.fromkeys(LANES, 0)
    winners: dict[str, tuple[Stamp, Row]] = {}
    batches = []
    for lane, writes in parts:
        batches.append(outcomes(writes, next_offset[lane], lane=lane))
        for offset, write in enumerate(writes, next_offset[lane]):
            stamp = Stamp(lane, offset, write.event_time)
            held = winners.get(write.id)
            if write.dead is None and (held is None or stamp.beats(held[0])):
                winners[write.id] = (stamp, write)
        next_offset[lane] += len(writes)
    wanted = [
        (stamp, write.id, chunk)
        for stamp, write in winners.values()
        for chunk in range(len(write.encoded.vectors) if write.encoded else 1)
    ]
    found = [
        (Stamp(rows.batch.lane, offset, time), identity, chunk)
        for rows in table_rows(batches)
        for offset, time, identity, chunk in zip(
            rows.of(rows.batch.offsets),
            rows.of(rows.batch.event_times),
            rows.of(rows.batch.ids),
            rows.chunks,
            strict=True,
        )
    ]
    assert sorted(found, key=str) == sorted(wanted, key=str)


def test_a_rejected_document_makes_no_row() -> None:
    """A dead letter that has a document's id does not stand in the way of its row."""
    [fault] = [dead_letter().dead]
    rejected = Row(tombstone("a").kind, "a", 9, dead=fault)
    [rows] = table_rows([outcomes([embedding("a"), rejected])])
    assert list(rows.indices) == [0]


STAMPS = st.builds(
    Stamp,
    lane=st.builds(Lane, st.sampled_from(["s", "t"]), st.integers(0, 2)),
    offset=st.integers(0, 5),
    event_time=st.integers(0, 3),
)


@given(STAMPS, STAMPS)
def test_one_of_two_wins(one: Stamp, other: Stamp) -> None:
    """Of two writes of a key one wins, whichever is asked; none wins over itself."""
    same = one.lane == other.lane and one.offset == other.offset
    assert one.beats(other) + other.beats(one) == (0 if same else 1)
    if one.lane == other.lane:
        assert one.beats(other) == (one.offset > other.offset)
    elif one.event_time != other.event_time:
        assert one.beats(other) == (one.event_time > other.event_time)
