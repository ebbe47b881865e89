"""Decode change events: rows of a database, as they are inserted, updated and deleted.

The document is made of the row by the same plan as of any record; its id is the row's primary key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from operators.debezium import Change, PartialRow, change, identity
from operators.judging import reject
from operators.mapping.decoder import MappedDecoder
from operators.records import Kind

if TYPE_CHECKING:
    from operators.records import DocumentRow, Headers

__all__ = ["ChangeDecoder"]


@dataclass(frozen=True, kw_only=True)
class ChangeDecoder(MappedDecoder):
    """Turns Debezium's events into documents.

    Of an update that does not carry the text, since it is as it was, only the metadata is taken. A
    row that the filter no longer takes after an update is deleted; one that it never took is passed
    over.
    """

    def _decode(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,  # noqa: ARG002 - other forms have something in them
        timestamp: int,
    ) -> DocumentRow:
        found = change(None if value is None else self.values.value(value))
        if found.kind is Kind.SKIP:
            return self._passed_over(timestamp)
        row, passed = found.row, found.row is not None and self._places.is_passed(found.row)
        if passed and not found.known:
            return self._passed_over(timestamp)
        if key is None:
            reject("missing_key", "the record has no key: the table has no primary key")
        name = identity(self.values.key(key))
        if row is None or passed:
            return self._deleted(name, timestamp)
        return self._document(name, row, timestamp, patch=self._is_patch(found))

    def _is_patch(self, found: Change) -> bool:
        """Whether nothing of the text is in the event, and so nothing of it has changed."""
        if not found.known or not isinstance(found.row, PartialRow):
            return False
        fields = self._places.text_fields
        return fields is not None and fields <= found.row.missing
