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
        places, none = self._places, self._columns.none
        if value is None:
            identity = places.identity(key, None)
            return Kind.DELETE, identity, None, None, None, none, timestamp, None
        record = self.values.value(value)
        if record is None:
            reject("bad_schema", "the value is null, written as JSON; a deletion has no value")
        if places.is_passed(record):
            return Kind.SKIP, "", None, None, None, none, timestamp, None
        identity = places.identity(key, record)
        if places.deletes(record):
            event_time = places.event_time(record, timestamp)
            return Kind.DELETE, identity, None, None, None, none, event_time, None
        text = places.text(record)
        whole, rest, typed = self._columns.forms(places.metadata(record))
        event_time = places.event_time(record, timestamp)
        # Of a record that is small itself, a plan may name the same place many times.
        self._check_grown(len(identity) + len(text), whole)
        return Kind.UPSERT, identity, text, whole, rest, typed, event_time, None
