"""The current row of a document, as its lane has it: for records that change only metadata.

What a lane has done to a document so far is in the table up to the table's progress, and in the
records that are still in flight behind it. The second part is kept here: what has left a view is
in the table.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from sys import getsizeof
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from operators.encoding import Encoded

__all__ = [
    "ROW_BYTES",
    "VIEW_BYTES",
    "CurrentRow",
    "LaneView",
    "RowLookup",
    "VectorLookup",
    "rows_size",
]

Row = TypeVar("Row")

VIEW_BYTES: Final = 32 << 20
"""What the views of all of a flow's lanes keep together of rows that both sinks have."""

ROW_BYTES: Final = 500
"""About what a row takes beside its id, text and vectors: objects, and its place in the dict."""


LAYERS: Final = 16
"""A layer of a view is full when it holds this part of what the view may keep."""


class CurrentRow(NamedTuple):
    """A document's text and what the model made of it.

    `encoded` is None for a document of the table with several chunks of which an older release
    did not keep the ranges of characters: its text is encoded again.
    """

    text: str
    encoded: Encoded | None


class RowLookup(Protocol):
    """Reads committed rows of the table."""

    def __call__(self, ids: Collection[str]) -> Mapping[str, CurrentRow]:
        """The rows of those ids that the table has and that are not deleted."""


class VectorLookup(Protocol):
    """Reads vectors of committed rows of the table."""

    def __call__(self, ids: Collection[str]) -> Mapping[bytes, NDArray[np.float32]]:
        """Those of the documents with those ids, by the hashes of their chunks."""


@dataclass(slots=True)
class _Layer(Generic[Row]):
    """Rows that successive batches set.

    Attributes:
        end: The end of the last of these batches.
        rows: The rows, by document; None for a deleted one.
        size: At most so many bytes they take, about.
    """

    end: int
    rows: dict[str, Row | None]
    size: int


class LaneView(Generic[Row]):
    """What a lane's records in flight made of their documents, and of some written ones.

    A row in flight is never forgotten: it shares its text with the record, which the source's
    budget counts. Rows that both sinks have are kept while there is room, since a document that
    changed is likely to change again; only where no other lane can have changed it since.

    Nearly all records only add to it, and few ask. So a batch's rows are added as one layer, at
    next to no cost, and whoever asks goes through the layers, the newest first.

    Args:
        kept: The most bytes of rows to keep that both sinks have, but for the newest layer.
        size: About how many bytes rows take.
    """

    def __init__(self, kept: int, size: Callable[[Mapping[str, Row | None]], int]) -> None:
        self._kept = kept
        self._size_of = size
        # Small batches share a layer, so that there are few. Not where none is to be kept: a
        # layer is forgotten as a whole, when both sinks have its last batch.
        self._full = kept // LAYERS
        self._end = 0
        self._size = 0
        self._layers: deque[_Layer[Row]] = deque()

    def __contains__(self, identity: str) -> bool:
        return any(identity in layer.rows for layer in self._layers)

    def get(self, identity: str) -> Row | None:
        """The row that the lane gave the document; None where it deleted it or doesn't know."""
        for layer in reversed(self._layers):
            if identity in layer.rows:
                return layer.rows[identity]
        return None

    def put(self, rows: dict[str, Row | None]) -> None:
        """The next batch of the lane sets these documents' rows, or deletes them (None).

        Their vectors must be their own, not views that hold on to those of a whole batch.
        """
        if not rows:
            return
        size = self._size_of(rows)
        self._size += size
        last = self._layers[-1] if self._layers else None
        if last is not None and last.size < self._full:
            last.rows.update(rows)
            last.end = self._end
            last.size += size
        else:
            self._layers.append(_Layer(self._end, rows, size))

    def advance(self, end: int, written: int) -> None:
        """Begin with the next batch: forget what the table has, as far as there is no room.

        Called before the batch is looked at, so what it `put`s is in flight until both sinks have
        all of the batch.

        Args:
            end: The batch's.
            written: The offset below which both sinks have all records of the lane.
        """
        self._end = end
        layers = self._layers
        while layers and self._size > self._kept and layers[0].end <= written:
            self._size -= layers.popleft().size


def rows_size(rows: Mapping[str, CurrentRow | None]) -> int:
    """About how many bytes rows of documents take."""
    held = [row for row in rows.values() if row is not None]
    vectors = sum(row[1].vectors.nbytes for row in held if row[1] is not None)
    texts = sum([getsizeof(row[0]) for row in held])
    return ROW_BYTES * len(rows) + sum(map(getsizeof, rows)) + texts + vectors
