"""The current row of a document, as its lane has it: for records that change only metadata.

What a lane has done to a document so far is in the table up to the table's progress, and in the
records that are still in flight behind it. The second part is kept here: what has left a view is
in the table.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from operators.encoding import Encoded

__all__ = ["VIEW_BYTES", "CurrentRow", "LaneView", "RowLookup"]

VIEW_BYTES: Final = 32 << 20
"""What the views of all of a flow's lanes keep together of rows that both sinks have."""

ROW_BYTES: Final = 500
"""About what a row takes beside its id, text and vectors: objects, and its place in the dict."""


class CurrentRow(NamedTuple):
    """A document's text and what the model made of it.

    `encoded` is None for a row of the table with several chunks, whose ranges of characters the
    table does not keep: its text is encoded again.
    """

    text: str
    encoded: Encoded | None


class RowLookup(Protocol):
    """Reads committed rows of the table."""

    def __call__(self, ids: Collection[str]) -> Mapping[str, CurrentRow]:
        """The rows of those ids that the table has and that are not deleted."""


class LaneView:
    """What a lane's records in flight made of their documents, and of some written ones.

    A row in flight is never forgotten: it shares its text with the record, which the source's
    budget counts. Rows that both sinks have are kept while there is room, since a document that
    changed is likely to change again; only where no other lane can have changed it since.

    Args:
        kept: The most bytes of rows to keep that both sinks have.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._end = 0
        self._size = 0
        # The end of the batch that set a row, the row, and about how many bytes it takes.
        self._rows: OrderedDict[str, tuple[int, CurrentRow | None, int]] = OrderedDict()

    def __contains__(self, identity: str) -> bool:
        return identity in self._rows

    def get(self, identity: str) -> CurrentRow | None:
        """The row that the lane gave the document; None where it deleted it or doesn't know."""
        held = self._rows.get(identity)
        return held[1] if held else None

    def put(self, identity: str, row: CurrentRow | None) -> None:
        """The next record of the lane sets the document's row, or deletes it (None).

        Its vectors must be its own, not a view that holds on to those of a whole batch.
        """
        before = self._rows.pop(identity, None)
        if before:
            self._size -= before[2]
        size = _size(identity, row)
        self._rows[identity] = (self._end, row, size)
        self._size += size

    def advance(self, end: int, written: int) -> None:
        """Begin with the next batch: forget what the table has, as far as there is no room.

        Called before the batch is looked at, so what it `put`s is in flight until both sinks have
        all of the batch.

        Args:
            end: The batch's.
            written: The offset below which both sinks have all records of the lane.
        """
        self._end = end
        while self._rows and self._size > self._kept:
            identity, (own_end, _, size) = next(iter(self._rows.items()))
            if own_end > written:
                return
            del self._rows[identity]
            self._size -= size


def _size(identity: str, row: CurrentRow | None) -> int:
    size = ROW_BYTES + sys.getsizeof(identity)
    if row is not None:
        size += sys.getsizeof(row.text)
        if row.encoded is not None:
            size += row.encoded.vectors.nbytes
    return size
