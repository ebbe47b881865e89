"""Records of a sample as objects, and the form that they have."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from operators.debezium import PartialRow, change
from operators.judging import Rejected, is_protobuf
from operators.records import Kind
from operators.values import JsonValues

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from operators.records import RecordBatch
    from operators.values import Values

__all__ = ["Form", "Reading", "Row", "read"]

REGISTRY_HEAD: Final = 5
"""Bytes in front of a value under a schema registry: a zero, and the number of its schema."""

OWN_FIELDS: Final = frozenset({"text", "metadata", "timestamp"})

_JSON: Final = JsonValues()


class Form(StrEnum):
    """What the records of a topic are."""

    OWN = "own"
    JSON = "json"
    DEBEZIUM = "debezium"
    REGISTRY = "registry"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Row:
    """A record that holds an object.

    Attributes:
        key: The record's key.
        fields: What is in it; of a change event the row of the database.
    """

    key: bytes | None
    fields: dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """What a sample holds.

    Attributes:
        form: What its records are.
        rows: Those that hold an object.
        records: How many records there were.
        empty: How many of them have no value.
        schema: The schema's number, under a registry.
        fault: What is wrong with the last one that could not be read; empty if there is none.
    """

    form: Form
    rows: Sequence[Row] = ()
    records: int = 0
    empty: int = 0
    schema: int | None = None
    fault: str = ""


@dataclass
class _Found:
    plain: list[Row] = field(default_factory=list)
    changes: list[Row] = field(default_factory=list)
    events: int = 0
    deleted: int = 0
    protobuf: int = 0
    schemas: list[int] = field(default_factory=list)
    fault: str = ""


def read(batches: Iterable[RecordBatch], values: Values = _JSON) -> Reading:
    """Make objects of records.

    Args:
        batches: The sample, a batch for each record or for several.
        values: Reads their values.
    """
    found, records, empty = _Found(), 0, 0
    for batch in batches:
        for key, value, headers in zip(batch.keys, batch.values, batch.headers, strict=True):
            records += 1
            if value is None:
                empty += 1
            elif is_protobuf(headers):
                found.protobuf += 1
            else:
                _take(found, key, value, values)
    form, rows = _form_of(found, records - empty)
    schema = found.schemas[-1] if form is Form.REGISTRY else None
    return Reading(form, rows, records, empty, schema, found.fault)


def _take(found: _Found, key: bytes | None, value: bytes, values: Values) -> None:
    try:
        whole = values.value(value)
    except Rejected as fault:
        found.fault = f"{fault.code}: {fault.message}"
        if len(value) > REGISTRY_HEAD and value[0] == 0:
            found.schemas.append(int.from_bytes(value[1:REGISTRY_HEAD], "big"))
        return
    if not isinstance(whole, dict):
        found.fault = "bad_schema: the value is no JSON object"
        return
    found.plain.append(Row(key, whole))
    try:
        event = change(whole)
    except Rejected:
        return
    found.events += 1
    found.deleted += event.kind is Kind.DELETE
    if event.kind is Kind.UPSERT and event.row is not None:
        found.changes.append(Row(key, _known(event.row)))


def _known(row: Any) -> dict[str, Any]:  # noqa: ANN401 - a mapping of which some can't be asked
    missing = row.missing if isinstance(row, PartialRow) else ()
    return {name: row[name] for name in row if name not in missing}


def _form_of(found: _Found, values: int) -> tuple[Form, list[Row]]:
    """What most of the values are."""
    if (found.changes or found.deleted) and 2 * found.events > values:
        return Form.DEBEZIUM, found.changes
    own = [row for row in found.plain if _is_own(row)]
    if 2 * (len(own) + found.protobuf) > values and (own or found.protobuf):
        return Form.OWN, own
    if 2 * len(found.plain) > values:
        return Form.JSON, found.plain
    if 2 * len(found.schemas) > values:
        return Form.REGISTRY, []
    return Form.UNREADABLE, []


def _is_own(row: Row) -> bool:
    """Whether a record has Headrace's own form."""
    fields = row.fields
    return (
        row.key is not None
        and bool(fields)
        and fields.keys() <= OWN_FIELDS
        and isinstance(fields.get("text", ""), str)
        and isinstance(fields.get("metadata", {}), dict | None)
        and isinstance(fields.get("timestamp"), int | None)
    )
