"""Decode: a record's key and value become a document, or a dead letter that says why not.

A record is judged in this order, and the first failing check names its code: size, key, encoding,
syntax, schema, text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from headrace.v1.document_pb2 import Document as DocumentMessage
from operators.decoding import RowDecoder
from operators.judging import (
    MAX_TIME_MS,
    MIN_TIME_MS,
    as_object,
    is_protobuf,
    key_identity,
    kind_of,
    parse_message,
    parse_object,
    record_size,
    reject,
)
from operators.mapping.times import time_ms
from operators.poison import POISON
from operators.records import Kind

if TYPE_CHECKING:
    from operators.records import DocumentRow, Headers
    from operators.values import Values

__all__ = ["ERROR_CODES", "Decoder"]

ERROR_CODES: Final = frozenset(
    {
        "missing_key",
        "bad_key",
        "bad_utf8",
        "bad_json",
        "bad_schema",
        "no_text",
        "too_large",
        "not_finite",
        POISON,
    }
)


Fields = tuple[str | None, dict[str, Any] | None, object]
"""A document's text, metadata and time."""


def _time(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        reject("bad_schema", f"timestamp must be an integer of milliseconds, is {kind_of(value)}")
    if not MIN_TIME_MS <= value <= MAX_TIME_MS:
        reject("bad_schema", f"timestamp is outside the years 1 to 9999: {value}")
    return value


def _fields_of_values(found: object) -> Fields:
    """The fields of what was written by a schema, which may have a null for what is not there."""
    fields = as_object(found, "the value")
    text, metadata, time = fields.get("text"), fields.get("metadata"), fields.get("timestamp")
    if text is not None and not isinstance(text, str):
        reject("bad_schema", f"text must be a string, is {kind_of(text)}")
    if metadata is not None:
        metadata = as_object(metadata, "metadata")
    # A schema's own type of a time is ISO 8601 as JSON.
    return text, metadata, time_ms(time, "timestamp") if isinstance(time, str) else time


def _fields_of_json(value: bytes) -> Fields:
    fields = parse_object(value, "the value")
    text = fields.get("text")
    if not isinstance(text, str) and "text" in fields:
        reject("bad_schema", f"text must be a string, is {kind_of(text)}")
    metadata = fields.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        metadata = as_object(metadata, "metadata")
    return text, metadata, fields.get("timestamp")


def _fields_of_protobuf(value: bytes) -> Fields:
    message = parse_message(value, DocumentMessage)
    metadata = None
    if message.HasField("metadata_json"):
        metadata = parse_object(message.metadata_json.encode(), "metadata_json")
    return (
        message.text if message.HasField("text") else None,
        metadata,
        message.timestamp if message.HasField("timestamp") else None,
    )


@dataclass(frozen=True)
class Decoder(RowDecoder):
    """Turns records of Headrace's own form into documents.

    Args:
        values: Reads keys and values; None where values are JSON, or Protobuf by their header.
    """

    values: Values | None = field(default=None, kw_only=True)

    def _decode(
        self, key: bytes | None, value: bytes | None, headers: Headers, timestamp: int
    ) -> DocumentRow:
        values = self.values
        identity = key_identity(key, "document") if values is None else values.identity(key)
        if value is None:
            return Kind.DELETE, identity, None, None, None, self._none, timestamp, None
        text, metadata, time = self._fields(value, headers)
        if text is None and metadata is None:
            reject("no_text", "the record has neither text nor metadata")
        if text is not None and (not text or text.isspace()):
            reject("no_text", "the text is empty")
        kind = Kind.PATCH if text is None else Kind.UPSERT
        whole, rest, typed = self._columns.forms(metadata)
        self._check_grown(record_size(key, None, headers), whole)
        event_time = timestamp if time is None else _time(time)
        typed = self._routed(typed, {"metadata": metadata})
        return kind, identity, text, whole, rest, typed, event_time, None

    def _fields(self, value: bytes, headers: Headers) -> Fields:
        if self.values is not None:
            return _fields_of_values(self.values.value(value))
        fields = _fields_of_protobuf if headers and is_protobuf(headers) else _fields_of_json
        return fields(value)
