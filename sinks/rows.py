"""Which writes win, and the rows of the table that they make.

All of it by column: a commit has thousands of rows, and an object for each would cost more than
all else that is done with it.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate, chain, pairwise, repeat
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from operators.records import Lane, OutcomeBatch

__all__ = ["KEY_BYTES", "Rows", "Stamp", "row_key", "table_rows", "written_rows"]

Value = TypeVar("Value")

KEY_BYTES: Final = 16


def row_key(identity: str, chunk: int = 0) -> bytes:
    """The key of a document's chunk: 16 bytes, which merge twice as fast as the id itself."""
    if not chunk:
        return blake2b(identity.encode(), digest_size=KEY_BYTES).digest()
    salt = chunk.to_bytes(4, "little")
    return blake2b(identity.encode(), digest_size=KEY_BYTES, salt=salt).digest()


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which write a row is of."""

    lane: Lane
    offset: int
    event_time: int

    def beats(self, other: Stamp) -> bool:
        """Whether this write wins over another of the same document.

        Within a lane the later offset wins; across lanes, after a topic was repartitioned, the
        later timestamp does.
        """
        if self.lane == other.lane:
            return self.offset > other.offset
        mine = (self.event_time, self.lane.partition, self.lane.topic)
        return mine > (other.event_time, other.lane.partition, other.lane.topic)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one batch's outcomes: chunks of embeddings, and tombstones.

    Attributes:
        batch: Holds the outcomes.
        indices: Where each row's outcome stands in the batch.
        chunks: The number of each row's chunk.
    """

    batch: OutcomeBatch
    indices: Sequence[int]
    chunks: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def of(self, column: Sequence[Value]) -> list[Value]:
        """The rows' values of one of the batch's columns."""
        return list(map(column.__getitem__, self.indices))


def table_rows(batches: Sequence[OutcomeBatch]) -> list[Rows]:
    """The rows of all chunks of the documents in some batches: each key once."""
    starts = [0, *accumulate(map(len, batches))]
    places = sorted(_winners(batches, starts).values())
    cuts = pairwise(bisect_left(places, start) for start in starts)
    return [
        _rows(batch, [place - start for place in places[first:last]])
        for batch, start, (first, last) in zip(batches, starts, cuts, strict=False)
        if first < last
    ]


def written_rows(batches: Sequence[OutcomeBatch]) -> list[Rows]:
    """A row for each write of some batches, in their order, to be joined by key."""
    return [
        _rows(batch, [index for _, index in _writes(batch, 0)])
        for batch in batches
        if len(batch) > len(batch.dead)
    ]


def _winners(batches: Sequence[OutcomeBatch], starts: Sequence[int]) -> dict[str, int]:
    """Each document's winning write: its place, counted through all batches."""
    lanes: dict[Lane, dict[str, int]] = {}
    # Within a lane the last write wins, as it does in a dict.
    for batch, start in sorted(zip(batches, starts, strict=False), key=lambda one: one[0].start):
        lanes.setdefault(batch.lane, {}).update(_writes(batch, start))
    winners: dict[str, int] = {}
    shared: set[str] = set()
    for own in lanes.values():
        shared |= winners.keys() & own.keys()
        winners.update(own)
    return winners | _across(batches, starts, shared) if shared else winners


def _writes(batch: OutcomeBatch, start: int) -> Iterable[tuple[str, int]]:
    """The documents of a batch, in its order, each with its place."""
    places = range(start, start + len(batch))
    writes = zip(batch.ids, places, strict=True)
    if not batch.dead:
        return writes
    dead = {start + index for index in batch.dead}
    return [write for write in writes if write[1] not in dead]


def _across(
    batches: Sequence[OutcomeBatch], starts: Sequence[int], shared: Collection[str]
) -> dict[str, int]:
    """The winning writes of documents that several lanes write, one after the other."""
    held: dict[str, tuple[Stamp, int]] = {}
    for batch, start in zip(batches, starts, strict=False):
        for identity, place in _writes(batch, start):
            if identity in shared:
                index = place - start
                stamp = Stamp(batch.lane, batch.offsets[index], batch.event_times[index])
                if identity not in held or stamp.beats(held[identity][0]):
                    held[identity] = (stamp, place)
    return {identity: place for identity, (_, place) in held.items()}


def _rows(batch: OutcomeBatch, indices: list[int]) -> Rows:
    """The rows of all chunks of some of a batch's documents."""
    encoded = map(batch.encoded.__getitem__, indices)
    counts = [1 if one is None else len(one.chunk_tokens) for one in encoded]
    if max(counts) == 1:
        return Rows(batch, indices, bytes(len(indices)))
    repeated = chain.from_iterable(map(repeat, indices, counts))
    return Rows(batch, list(repeated), list(chain.from_iterable(map(range, counts))))
