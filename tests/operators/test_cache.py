from __future__ import annotations

from collections import OrderedDict
from sys import getsizeof

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from operators.cache import ENTRY_BYTES, SHORT_TEXT, EncodingCache
from tests.samples import encoded

ROOM = 1 << 20


@given(st.integers(0, 4), st.lists(st.tuples(st.booleans(), st.sampled_from("abcdef"))))
def test_forgets_what_was_used_longest_ago(limit: int, steps: list[tuple[bool, str]]) -> None:
    """It behaves as a plain least-recently-used dict of that size."""
    cache = EncodingCache(limit, ROOM)
    model: OrderedDict[str, None] = OrderedDict()
    for put, text in steps:
        if put:
            cache.put(cache.fingerprint(text), encoded(text))
            if limit:
                model[text] = None
                model.move_to_end(text)
                while len(model) > limit:
                    model.popitem(last=False)
        else:
            found = cache.get(cache.fingerprint(text))
            assert (found is not None) == (text in model)
            if found is not None:
                model.move_to_end(text)
                np.testing.assert_array_equal(found.vectors, encoded(text).vectors)
        assert len(cache) == len(model) <= limit


@given(
    st.integers(0, 20_000),
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 20)), max_size=40),
)
def test_is_bounded_by_bytes(room: int, puts: list[tuple[str, int]]) -> None:
    """However many chunks texts have, what is kept takes no more than it may."""
    cache = EncodingCache(100, room)
    for text, chunks in puts:
        made = encoded(text * 20, chunks)
        cache.put(text.encode(), made)
        found = [cache.get(name.encode()) for name in "abcdefgh"]
        assert sum(e.vectors.nbytes + ENTRY_BYTES * len(e.spans) for e in found if e) <= room
        fits = made.vectors.nbytes + ENTRY_BYTES * chunks <= room
        # A text of too many chunks leaves what was there before.
        assert not fits or cache.get(text.encode()) is not None


def test_keeps_no_view_into_a_whole_inference() -> None:
    """What is kept is a copy, so an entry does not hold on to the array of its whole batch."""
    whole = np.zeros((1000, 8), np.float32)
    given = encoded("a")
    cache = EncodingCache(1, ROOM)
    view = type(given)(whole[:1], given.spans, given.chunk_tokens, given.tokens, given.truncated)
    cache.put(b"a", view)
    whole += 1
    kept = cache.get(b"a")
    assert kept is not None
    assert kept.vectors.base is None
    assert not kept.vectors.any()


@given(st.sets(st.text() | st.text("ab", min_size=60, max_size=80), min_size=2, max_size=20))
def test_fingerprints_tell_texts_apart(texts: set[str]) -> None:
    """Each text has one of its own, of few bytes however long it is."""
    fingerprints = {EncodingCache.fingerprint(text) for text in texts}
    assert len(fingerprints) == len(texts)
    assert max(map(getsizeof, fingerprints)) <= getsizeof("x" * SHORT_TEXT)


@given(st.lists(st.sampled_from("abcdef"), unique=True), st.lists(st.sampled_from("abcdef")))
def test_many_are_looked_up_as_one_by_one(held: list[str], asked: list[str]) -> None:
    """Asking for several texts at once gives and keeps what asking for each would."""
    one, other = EncodingCache(3, ROOM), EncodingCache(3, ROOM)
    for text in held:
        one.put(text, encoded(text))
        other.put(text, encoded(text))
    found = [one.get(text) is not None for text in asked]
    assert [e is not None for e in other.get_all(asked)] == found
    for cache in (one, other):
        cache.put("new", encoded("new"))
    assert [one.get(t) is None for t in held] == [other.get(t) is None for t in held]
