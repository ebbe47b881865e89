"""What the tests of several folders make: lanes, encodings, rows, batches of outcomes."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from operators.encoding import Encoded
from operators.records import (
    DeadLetter,
    Headers,
    Lane,
    Metadata,
    Original,
    Outcome,
    OutcomeBatch,
    Row,
)
from sinks.schema import TableRow, winning_heads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LANE = Lane("documents", 0)
DIMENSION = 8


def encoded(
    text: str, chunks: int = 1, *, dimension: int = DIMENSION, truncated: bool = False
) -> Encoded:
    """Unit vectors that depend on nothing but the text."""
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    vectors = np.random.default_rng(seed).standard_normal((chunks, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    piece = -(-len(text) // chunks)
    spans = tuple(
        (min(i * piece, len(text)), min((i + 1) * piece, len(text))) for i in range(chunks)
    )
    tokens = tuple(end - start + 2 for start, end in spans)
    return Encoded(vectors, spans, tokens, sum(tokens), truncated)


def embedding(
    identity: str,
    text: str = "some text",
    chunks: int = 1,
    *,
    time_ms: int = 0,
    metadata: Metadata | None = None,
    patch: bool = False,
    headers: Headers = (),
) -> Row:
    """The outcome of a document."""
    return Row(
        Outcome.EMBEDDING,
        identity,
        time_ms,
        text,
        metadata or Metadata(),
        encoded(text, chunks),
        patch=patch,
        headers=headers,
    )


def tombstone(identity: str, time_ms: int = 0) -> Row:
    """The outcome of a deletion."""
    return Row(Outcome.TOMBSTONE, identity, time_ms)


def dead_letter(code: str = "bad_json", original: Original | None = None) -> Row:
    """The outcome of a bad record."""
    original = original or Original(b"key", b"value", ())
    return Row(Outcome.DEAD_LETTER, "", 0, dead=DeadLetter(code, "what is wrong", original))


def outcomes(
    rows: Sequence[Row],
    first: int = 0,
    *,
    lane: Lane = LANE,
    offsets: Sequence[int] | None = None,
    start: int | None = None,
    end: int | None = None,
) -> OutcomeBatch:
    """A batch of outcomes, at the offsets from `first` on unless they are given."""
    offsets = list(range(first, first + len(rows))) if offsets is None else list(offsets)
    start = (offsets[0] if offsets else first) if start is None else start
    end = (offsets[-1] + 1 if offsets else first) if end is None else end
    return OutcomeBatch(lane, start, end, 1_000, offsets, [7] * len(rows), list(rows))


@st.composite
def gappy_batches(
    draw: st.DrawFn, *, first: int | None = None, max_records: int = 12
) -> OutcomeBatch:
    """A batch with gaps before, between and after its records."""
    start = draw(st.integers(0, 5)) if first is None else first
    offsets: list[int] = []
    end = start
    for gap in draw(st.lists(st.integers(0, 3), max_size=max_records)):
        offsets.append(end + gap)
        end = offsets[-1] + 1
    end += draw(st.integers(0, 3))
    rows = [tombstone(f"{offset}") for offset in offsets]
    return outcomes(rows, lane=LANE, offsets=offsets, start=start, end=end)


def until(done: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def table_rows(batches: Sequence[OutcomeBatch]) -> list[TableRow]:
    """The rows of all chunks that some batches make of an empty table."""
    heads = winning_heads(batches)
    return [head.with_chunk(chunk) for head in heads for chunk in range(head.chunks)]
