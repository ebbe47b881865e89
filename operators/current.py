"""The current row of a document, as its lane has it: for records that change only metadata.

What a lane has done to a document so far is in the table up to the table's progress, and in the
records that are still in flight behind it. The second part is kept here, in a view bounded by
the most records that the source lets be in flight: what has left the view is in the table.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from operators.encoding import Encoded

__all__ = ["CurrentRow", "LaneView", "RowLookup"]


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
    """What a lane's records in flight made of their documents.

    Args:
        in_flight: The most records between the source and the slower sink.
    """

    def __init__(self, in_flight: int) -> None:
        self._in_flight = in_flight
        self._seen = 0
        self._rows: OrderedDict[str, tuple[int, CurrentRow | None]] = OrderedDict()

    def __contains__(self, identity: str) -> bool:
        return identity in self._rows

    def get(self, identity: str) -> CurrentRow | None:
        """The row that the lane gave the document; None where it deleted it or doesn't know."""
        held = self._rows.get(identity)
        return held[1] if held else None

    def put(self, identity: str, row: CurrentRow | None) -> None:
        """The next record of the lane sets the document's row, or deletes it (None)."""
        self._rows.pop(identity, None)
        self._rows[identity] = (self._seen, row)

    def advance(self, records: int) -> None:
        """So many more records were read: forget what can no longer be in flight.

        Called before they are looked at, so what they `put` counts as read with the last of them.
        """
        self._seen += records
        while self._rows:
            identity, (seen, _) = next(iter(self._rows.items()))
            if seen > self._seen - self._in_flight:
                return
            del self._rows[identity]
