"""What the tests of several folders make: lanes, encodings, rows, batches of outcomes."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from operators.encoding import Encoded
from operators.records import (
    DeadLetter,
    Headers,
    Kind,
    Lane,
    Metadata,
    Original,
    Outcome,
    OutcomeBatch,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

LANE = Lane("documents", 0)
DIMENSION = 8
COLUMNS = {
    "name": "string",
    "on": "bool",
    "small": "int32",
    "big": "int64",
    "half": "float32",
    "price": "float64",
}
"""A typed column of each type."""


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


class Clock:
    """A clock of our own."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


class Log:
    """What is logged, and with what fields."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        """A line of whatever level."""
        self.events.append((event, fields))

    info = error = warning


class Fields(NamedTuple):
    """The metadata of one document."""

    json: str | None = "{}"
    rest: str | None = "{}"
    typed: Mapping[str, Any] = {}


NOTHING = Fields(None, None)


@dataclass(frozen=True)
class Row:
    """One outcome, as a row through a batch's columns."""

    kind: Kind
    id: str
    event_time: int
    text: str | None = None
    metadata: Fields = NOTHING
    encoded: Encoded | None = None
    headers: Headers = ()
    dead: DeadLetter | None = None

    @property
    def outcome(self) -> Outcome:
        """What became of the record."""
        if self.dead is not None:
            return Outcome.DEAD_LETTER
        return Outcome.TOMBSTONE if self.kind is Kind.DELETE else Outcome.EMBEDDING


def embedding(
    identity: str,
    text: str = "some text",
    chunks: int = 1,
    *,
    time_ms: int = 0,
    metadata: Fields | None = None,
    patch: bool = False,
    headers: Headers = (),
) -> Row:
    """The outcome of a document."""
    return Row(
        Kind.PATCH if patch else Kind.UPSERT,
        identity,
        time_ms,
        text,
        metadata or Fields(),
        encoded(text, chunks),
        headers,
    )


def tombstone(identity: str, time_ms: int = 0) -> Row:
    """The outcome of a deletion."""
    return Row(Kind.DELETE, identity, time_ms)


def dead_letter(code: str = "bad_json", original: Original | None = None) -> Row:
    """The outcome of a bad record."""
    original = original or Original(b"key", b"value", ())
    return Row(Kind.DEAD, "", 0, dead=DeadLetter(code, "what is wrong", original))


def outcomes(
    rows: Sequence[Row],
    first: int = 0,
    *,
    lane: Lane = LANE,
    offsets: Sequence[int] | None = None,
    start: int | None = None,
    end: int | None = None,
    embedded_at: int = 1_000,
    drained: bool = False,
) -> OutcomeBatch:
    """A batch of outcomes, at the offsets from `first` on unless they are given."""
    offsets = list(range(first, first + len(rows))) if offsets is None else list(offsets)
    return OutcomeBatch(
        lane,
        start=(offsets[0] if offsets else first) if start is None else start,
        end=(offsets[-1] + 1 if offsets else first) if end is None else end,
        embedded_at=embedded_at,
        offsets=offsets,
        timestamps=[7] * len(rows),
        kinds=[row.kind for row in rows],
        ids=[row.id for row in rows],
        event_times=[row.event_time for row in rows],
        texts=[row.text for row in rows],
        metadata=_columns([row.metadata for row in rows]),
        encoded=[row.encoded for row in rows],
        headers={index: row.headers for index, row in enumerate(rows) if row.headers},
        dead={index: row.dead for index, row in enumerate(rows) if row.dead is not None},
        drained=drained,
    )


def _columns(fields: Sequence[Fields]) -> Metadata:
    names = {name for own in fields for name in own.typed}
    return Metadata(
        [own.json for own in fields],
        [own.rest for own in fields],
        {name: [own.typed.get(name) for own in fields] for name in names},
    )


def rows_of(batch: OutcomeBatch) -> list[Row]:
    """The rows through a batch's columns; what no sink reads of a dead letter is left out."""
    return [_row(batch, index) for index in range(len(batch))]


def _row(batch: OutcomeBatch, index: int) -> Row:
    dead = batch.dead.get(index)
    typed = {name: values[index] for name, values in batch.metadata.typed.items()}
    metadata = Fields(batch.metadata.json[index], batch.metadata.rest[index], typed)
    return Row(
        batch.kinds[index],
        batch.ids[index],
        batch.event_times[index],
        None if dead else batch.texts[index],
        NOTHING if dead else metadata,
        batch.encoded[index],
        batch.headers.get(index, ()),
        dead,
    )


@st.composite
def gappy_batches(
    draw: st.DrawFn, *, first: int | None = None, max_records: int = 12, lane: Lane = LANE
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
    return outcomes(rows, lane=lane, offsets=offsets, start=start, end=end)


def until(done: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
