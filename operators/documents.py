"""Decode: a record's key and value become a document, or a dead letter that says why not.

A record is judged in this order, and the first failing check names its code: size, key, encoding,
syntax, schema, text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import orjson

from headrace.v1.document_pb2 import Document as DocumentMessage
from operators.judging import (
    MAX_TIME_MS,
    MIN_TIME_MS,
    Rejected,
    as_object,
    carried,
    dead_letter,
    is_protobuf,
    key_identity,
    kind_of,
    parse_message,
    parse_object,
    record_size,
    reject,
    too_large,
)
from operators.poison import POISON
from operators.records import (
    Document,
    DocumentBatch,
    DocumentRow,
    Headers,
    Kind,
    Metadata,
    Original,
    RecordBatch,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["COLUMN_TYPES", "ERROR_CODES", "Decoder"]

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

_MOST_BYTES: Final = 4  # of a character in UTF-8
MAX_FLOAT32: Final = 3.4028234663852886e38


def _string(name: str, value: object) -> str:
    if not isinstance(value, str):
        reject("bad_schema", f"metadata {name!r} must be a string, is {kind_of(value)}")
    return value


def _boolean(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        reject("bad_schema", f"metadata {name!r} must be true or false, is {kind_of(value)}")
    return value


def _float(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        reject("bad_schema", f"metadata {name!r} must be a number, is {kind_of(value)}")
    return float(value)


def _float32(name: str, value: object) -> float:
    number = _float(name, value)
    return math.inf if abs(number) > MAX_FLOAT32 else number


def _integer(bits: int) -> Callable[[str, object], int]:
    limit = 1 << (bits - 1)

    def check(name: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            reject("bad_schema", f"metadata {name!r} must be an integer, is {kind_of(value)}")
        if not -limit <= value < limit:
            reject("bad_schema", f"metadata {name!r} does not fit {bits} bits: {value}")
        return value

    return check


COLUMN_TYPES: Final[Mapping[str, Callable[[str, object], object]]] = {
    "string": _string,
    "bool": _boolean,
    "int32": _integer(32),
    "int64": _integer(64),
    "float32": _float32,
    "float64": _float,
}
"""The types a metadata column can have, and the check that a value of it passes."""


def _time(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        reject("bad_schema", f"timestamp must be an integer of milliseconds, is {kind_of(value)}")
    if not MIN_TIME_MS <= value <= MAX_TIME_MS:
        reject("bad_schema", f"timestamp is outside the years 1 to 9999: {value}")
    return value


def _fields_of_json(value: bytes) -> tuple[str | None, dict[str, Any] | None, object]:
    fields = parse_object(value, "the value")
    text = fields.get("text")
    if not isinstance(text, str) and "text" in fields:
        reject("bad_schema", f"text must be a string, is {kind_of(text)}")
    metadata = fields.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        metadata = as_object(metadata, "metadata")
    return text, metadata, fields.get("timestamp")


def _fields_of_protobuf(value: bytes) -> tuple[str | None, dict[str, Any] | None, object]:
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
class Decoder:
    """Turns records into documents.

    Args:
        columns: The metadata fields that the table keeps as typed columns, with their types.
        max_record_bytes: Key, value and headers of a record together; a larger one is a dead
            letter.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    max_record_bytes: int = 900_000

    def __call__(self, batch: RecordBatch) -> DocumentBatch:
        """One document for each record of the batch, in its order."""
        if not len(batch):
            return DocumentBatch(batch)
        rows = map(self._row, batch.keys, batch.values, batch.headers, batch.timestamps)
        kinds, ids, texts, whole, rest, typed, times, dead = zip(*rows, strict=True)
        columns = dict(zip(self.columns, zip(*typed, strict=True), strict=True))
        return DocumentBatch(
            batch,
            kinds,
            ids,
            texts,
            Metadata(whole, rest, columns),
            times,
            carried(batch.headers),
            {index: letter for index, letter in enumerate(dead) if letter} if any(dead) else {},
        )

    def decode(
        self, key: bytes | None, value: bytes | None, headers: Headers, timestamp: int
    ) -> Document:
        """The document that the record holds, or the dead letter that it becomes."""
        return Document(*self._row(key, value, headers, timestamp))

    def _row(
        self, key: bytes | None, value: bytes | None, headers: Headers, timestamp: int
    ) -> DocumentRow:
        """The same as a plain tuple, which costs less to make."""
        try:
            return self._decode(key, value, headers, timestamp)
        except Rejected as fault:
            dead = dead_letter(fault, Original(key, value, headers), self.max_record_bytes)
            return Kind.DEAD, "", None, None, None, self._untyped, timestamp, dead

    def _decode(
        self, key: bytes | None, value: bytes | None, headers: Headers, timestamp: int
    ) -> DocumentRow:
        size = record_size(key, value, headers)
        if size > self.max_record_bytes:
            too_large(size, self.max_record_bytes)
        identity = key_identity(key, "document")
        if value is None:
            return Kind.DELETE, identity, None, None, None, self._untyped, timestamp, None
        fields = _fields_of_protobuf if headers and is_protobuf(headers) else _fields_of_json
        text, metadata, time = fields(value)
        if text is None and metadata is None:
            reject("no_text", "the record has neither text nor metadata")
        if text is not None and (not text or text.isspace()):
            reject("no_text", "the text is empty")
        kind = Kind.PATCH if text is None else Kind.UPSERT
        whole, rest, typed = self._metadata(metadata) if metadata else ("{}", "{}", self._untyped)
        # Numbers can be longer when written again, as 1e15 is.
        if size - len(value) + len(whole) > self.max_record_bytes // _MOST_BYTES:
            grown = size - len(value) + len(whole.encode())
            if grown > self.max_record_bytes:
                what = "with its metadata written out the record has"
                too_large(grown, self.max_record_bytes, what)
        event_time = timestamp if time is None else _time(time)
        return kind, identity, text, whole, rest, typed, event_time, None

    @cached_property
    def _untyped(self) -> tuple[None, ...]:
        """The typed columns of a document that has no metadata."""
        return (None,) * len(self.columns)

    def _metadata(self, fields: dict[str, Any]) -> tuple[str, str, tuple[Any, ...]]:
        """All of it as JSON, what no typed column takes as JSON, and the typed columns' values."""
        typed: list[object] = []
        for name, column_type in self.columns.items():
            value = fields.get(name)
            if value is not None:
                value = COLUMN_TYPES[column_type](name, value)
                if isinstance(value, float) and not math.isfinite(value):
                    reject("not_finite", f"metadata {name!r} is no finite number")
            typed.append(value)
        try:
            whole = orjson.dumps(fields).decode()
        except orjson.JSONEncodeError as error:
            reject("bad_schema", f"metadata can't be kept: {error}")
        if not self.columns:
            return whole, whole, ()
        rest = {name: value for name, value in fields.items() if name not in self.columns}
        return whole, orjson.dumps(rest).decode() if rest else "{}", tuple(typed)
