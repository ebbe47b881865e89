from __future__ import annotations

import pickle
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.records import Lane, Outcome, OutcomeBatch, count
from tests.samples import (
    Row,
    dead_letter,
    embedding,
    gappy_batches,
    outcomes,
    rows_of,
    tombstone,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@given(gappy_batches(), st.data())
def test_slices_join_without_a_seam(batch: OutcomeBatch, data: st.DataObject) -> None:
    """Cut anywhere, a batch's slices cover its offsets and records once and in order."""
    cuts = data.draw(st.sets(st.integers(1, max(1, len(batch) - 1))))
    edges = [0, *(c for c in sorted(cuts) if c < len(batch)), len(batch)]
    pieces = [batch.slice(first, last) for first, last in pairwise(edges)]
    assert pieces[0].start == batch.start
    assert pieces[-1].end == batch.end
    assert all(left.end == right.start for left, right in pairwise(pieces))
    assert [row for piece in pieces for row in rows_of(piece)] == rows_of(batch)
    for piece in pieces:
        assert all(piece.start <= offset < piece.end for offset in piece.offsets)
        assert len(piece.timestamps) == len(rows_of(piece)) == len(piece)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_empty_slice_covers_nothing(place: int) -> None:
    """A slice without records holds no offset that the slice after it holds too."""
    batch = outcomes([tombstone("a"), tombstone("b")], offsets=[4, 6], start=3, end=9)
    empty, rest = batch.slice(place, place), batch.slice(place, 2)
    assert len(empty) == 0
    assert empty.end <= (rest.start if place < 2 else batch.end)


@given(gappy_batches(), st.integers(0, 70))
def test_since_drops_exactly_what_is_below(batch: OutcomeBatch, offset: int) -> None:
    """What a sink has is dropped, what it lacks is kept, and the rest starts at that offset."""
    rest = batch.since(offset)
    if batch.end <= offset:
        assert rest is None
        return
    assert rest is not None
    kept = [i for i, own in enumerate(batch.offsets) if own >= offset]
    assert list(rest.offsets) == [batch.offsets[i] for i in kept]
    assert rows_of(rest) == [rows_of(batch)[i] for i in kept]
    assert rest.start == max(batch.start, offset)
    assert rest.end == batch.end


@given(gappy_batches(), st.integers(0, 30), st.integers(0, 30))
def test_since_twice_is_since_once(batch: OutcomeBatch, one: int, other: int) -> None:
    """Dropping in two steps drops the same as dropping at once."""
    half = batch.since(min(one, other))
    twice = None if half is None else half.since(max(one, other))
    assert twice == batch.since(max(one, other))


@given(st.lists(st.tuples(st.sampled_from(["a", "b.c", "b-c"]), st.integers(0, 999_999))))
def test_lane_keys_sort_and_come_back(names: list[tuple[str, int]]) -> None:
    """A lane's key gives the lane again, and keys of one topic sort as its partitions do."""
    lanes = [Lane(topic, partition) for topic, partition in names]
    assert [Lane.parse(lane.key) for lane in lanes] == lanes
    own = [lane for lane in lanes if lane.topic == "a"]
    assert sorted(own) == [Lane.parse(key) for key in sorted(lane.key for lane in own)]


def test_count_adds_records_up() -> None:
    """Offsets without a record do not count."""
    one = outcomes([tombstone("a")], offsets=[4], start=0, end=9)
    assert count([one, one.slice(1, 1)]) == 1


@given(st.lists(st.sampled_from(["embedding", "chunks", "tombstone", "dead"]), max_size=6))
def test_a_batch_comes_back_from_another_process(kinds: list[str]) -> None:
    """Pickled, with all vectors in one array, a batch keeps every column."""
    makers: dict[str, Callable[[str], Row]] = {
        "embedding": lambda name: embedding(name, "one", headers=(("event_id", b"1"),)),
        "chunks": lambda name: embedding(name, "one two three", 3),
        "tombstone": tombstone,
        "dead": lambda _: dead_letter(),
    }
    batch = outcomes([makers[kind](str(i)) for i, kind in enumerate(kinds)], end=9)
    back = pickle.loads(pickle.dumps(batch, pickle.HIGHEST_PROTOCOL))  # noqa: S301 - our own
    assert (back.start, back.end, back.offsets) == (batch.start, batch.end, batch.offsets)
    for one, other in zip(rows_of(batch), rows_of(back), strict=True):
        assert replace(one, encoded=None) == replace(other, encoded=None)
        assert (one.encoded is None) == (other.encoded is None)
        if one.encoded is not None and other.encoded is not None:
            np.testing.assert_array_equal(one.encoded.vectors, other.encoded.vectors)
            plain = [(e.spans, e.chunk_tokens, e.tokens) for e in (one.encoded, other.encoded)]
            assert plain[0] == plain[1]


def test_outcomes_follow_from_kinds_and_dead_letters() -> None:
    """An upsert gives an embedding, a deletion a tombstone, whatever is rejected a dead letter."""
    rows = [embedding("a"), tombstone("b"), dead_letter(), embedding("c")]
    rejected = replace(tombstone("d"), dead=dead_letter().dead)
    assert outcomes(rows).outcomes() == {
        Outcome.EMBEDDING: 2,
        Outcome.TOMBSTONE: 1,
        Outcome.DEAD_LETTER: 1,
    }
    batch = outcomes([rejected, tombstone("b")])
    assert batch.outcomes() == {Outcome.TOMBSTONE: 1, Outcome.DEAD_LETTER: 1}
    assert not batch.has_patch
    assert outcomes([embedding("a", patch=True)]).has_patch
