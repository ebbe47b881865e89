"""Decode records of any shape by a mapping.

A record is judged in this order, and the first failing check names its code: size, syntax, filter,
id, deletion, text, metadata, time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from operators.decoding import RowDecoder
from operators.judging import reject
from operators.mapping.plan import Places, Plan
from operators.records import Kind
from operators.values import JsonValues, Values

if TYPE_CHECKING:
    from operators.records import DocumentRow, Headers

__all__ = ["MappedDecoder"]


@dataclass(frozen=True, kw_only=True)
class MappedDecoder(RowDecoder):
    """Turns records into documents as a plan says.

    Args:
        plan: Where things are.
        values: Reads keys and values.

    Raises:
        UsageError: A pointer or an expression of the plan is none.
    """

    plan: Plan
    values: Values = field(default_factory=JsonValues)

    def __post_init__(self) -> None:
        assert self._places  # what is wrong with the plan is wrong at once

    @cached_property
    def _places(self) -> Places:
        return Places(self.plan, self.values)

    def _decode(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,  # noqa: ARG002 - other forms have something in them
        timestamp: int,
    ) -> DocumentRow:
        if value is None:
            return self._deleted(self._places.identity(key, None), timestamp)
        record = self.values.value(value)
        if record is None:
            reject("bad_schema", "the value is null, written as JSON; a deletion has no value")
        if self._places.is_passed(record):
            return self._passed_over(timestamp)
        return self._document(self._places.identity(key, record), record, timestamp)

    def _document(
        self, identity: str, record: object, timestamp: int, *, patch: bool = False
    ) -> DocumentRow:
        """What a record makes of a document.

        Args:
            identity: The document's id.
            record: The record.
            timestamp: The record's own.
            patch: Whether the text is that of the row as it is.

        Raises:
            Rejected: It does not fit the plan.
        """
        places = self._places
        if places.deletes(record):
            return self._deleted(identity, places.event_time(record, timestamp))
        text = None if patch else places.text(record)
        whole, rest, typed = self._columns.forms(places.metadata(record))
        event_time = places.event_time(record, timestamp)
        # Of a record that is small itself, a plan may name the same place many times.
        self._check_grown(len(identity) + len(text or ""), whole)
        typed = self._routed(typed, record)
        kind = Kind.PATCH if patch else Kind.UPSERT
        return kind, identity, text, whole, rest, typed, event_time, None

    def _deleted(self, identity: str, event_time: int) -> DocumentRow:
        return Kind.DELETE, identity, None, None, None, self._none, event_time, None

    def _passed_over(self, timestamp: int) -> DocumentRow:
        return Kind.SKIP, "", None, None, None, self._none, timestamp, None
