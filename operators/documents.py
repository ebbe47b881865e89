"""Decode: a record's key and value become a document, or a dead letter that says why not.

A record is judged in this order, and the first failing check names its code: size, key, encoding,
syntax, schema, text.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NoReturn

import orjson
from google.protobuf.message import DecodeError

from headrace.v1.document_pb2 import Document as DocumentMessage
from operators.records import (
    CARRIED_HEADERS,
    DeadLetter,
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
    from collections.abc import Callable, Mapping, Sequence

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
    }
)

MAX_ID_BYTES: Final = 1024
_MOST_BYTES: Final = 4  # of a character in UTF-8
MIN_TIME_MS: Final = -62_135_596_800_000  # 0001-01-01, the first day that a datetime can show
MAX_FLOAT32: Final = 3.4028234663852886e38
MAX_TIME_MS: Final = 253_402_300_799_999  # the end of 9999


class _Rejected(Exception):  # noqa: N818 - control flow inside this module, not an error of its own
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def _reject(code: str, message: str) -> NoReturn:
    raise _Rejected(code, message)


def _string(name: str, value: object) -> str:
    if not isinstance(value, str):
        _reject("bad_schema", f"metadata {name!r} must be a string, is {_kind(value)}")
    return value


def _boolean(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        _reject("bad_schema", f"metadata {name!r} must be true or false, is {_kind(value)}")
    return value


def _float(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _reject("bad_schema", f"metadata {name!r} must be a number, is {_kind(value)}")
    return float(value)


def _float32(name: str, value: object) -> float:
    number = _float(name, value)
    return math.inf if abs(number) > MAX_FLOAT32 else number


def _integer(bits: int) -> Callable[[str, object], int]:
    limit = 1 << (bits - 1)

    def check(name: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            _reject("bad_schema", f"metadata {name!r} must be an integer, is {_kind(value)}")
        if not -limit <= value < limit:
            _reject("bad_schema", f"metadata {name!r} does not fit {bits} bits: {value}")
        return value

    return check


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    names |= {int: "an integer", float: "a number", type(None): "null"}
    return names.get(type(value), type(value).__name__)


COLUMN_TYPES: Final[Mapping[str, Callable[[str, object], object]]] = {
    "string": _string,
    "bool": _boolean,
    "int32": _integer(32),
    "int64": _integer(64),
    "float32": _float32,
    "float64": _float,
}
"""The types a metadata column can have, and the check that a value of it passes."""


def _headers_size(headers: Headers) -> int:
    """The bytes of a record's headers."""
    return sum(len(name) + len(value or b"") for name, value in headers)


def _document_id(key: bytes | None) -> str:
    if key is None:
        _reject("missing_key", "the record has no key; the key is the document's id")
    if not 1 <= len(key) <= MAX_ID_BYTES:
        _reject("bad_key", f"the key has {len(key)} bytes; an id has 1 to {MAX_ID_BYTES}")
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        _reject("bad_key", f"the key is not UTF-8: {error.reason} at byte {error.start}")


def _parse_object(value: bytes, what: str) -> dict[str, Any]:
    """The JSON object, where NaN and the infinities are refused by their own code."""
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        _reject_json(value, error)
    return found if isinstance(found, dict) else _object(found, what)


def _reject_json(value: bytes, reason: orjson.JSONDecodeError) -> NoReturn:
    try:
        value.decode()
    except UnicodeDecodeError as error:
        _reject("bad_utf8", f"the value is not UTF-8: {error.reason} at byte {error.start}")
    _reject_non_finite(value)
    _reject("bad_json", f"the value is not JSON: {reason}")


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        _reject("not_finite", f"{number} is no finite number")
    return value


def _reject_non_finite(value: bytes) -> None:
    """Refuse, by its own code, JSON whose fault is a number that is none."""
    try:
        json.loads(value, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        return


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _reject("bad_schema", f"{what} must be a JSON object, is {_kind(value)}")
    return value


def _time(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        _reject("bad_schema", f"timestamp must be an integer of milliseconds, is {_kind(value)}")
    if not MIN_TIME_MS <= value <= MAX_TIME_MS:
        _reject("bad_schema", f"timestamp is outside the years 1 to 9999: {value}")
    return value


def _is_protobuf(headers: Headers) -> bool:
    return any(
        name.lower() == "content-type"
        and (value or b"").split(b";")[0].strip().lower() == b"application/x-protobuf"
        for name, value in headers
    )


def _fields_of_json(value: bytes) -> tuple[str | None, dict[str, Any] | None, object]:
    fields = _parse_object(value, "the value")
    text = fields.get("text")
    if not isinstance(text, str) and "text" in fields:
        _reject("bad_schema", f"text must be a string, is {_kind(text)}")
    metadata = fields.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        metadata = _object(metadata, "metadata")
    return text, metadata, fields.get("timestamp")


def _fields_of_protobuf(value: bytes) -> tuple[str | None, dict[str, Any] | None, object]:
    try:
        message = DocumentMessage.FromString(value)
    except DecodeError as error:
        _reject("bad_schema", f"the value is no headrace.v1.Document: {error}")
    metadata = None
    if message.HasField("metadata_json"):
        metadata = _parse_object(message.metadata_json.encode(), "metadata_json")
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
            _carried(batch.headers),
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
        except _Rejected as fault:
            original = Original(key, value, headers)
            if fault.code == "too_large":
                original = self._reference(original)
            dead = DeadLetter(fault.code, fault.message, original)
            return Kind.DEAD, "", None, None, None, self._untyped, timestamp, dead

    def _decode(
        self, key: bytes | None, value: bytes | None, headers: Headers, timestamp: int
    ) -> DocumentRow:
        size = len(key or b"") + len(value or b"")
        if headers:
            size += _headers_size(headers)
        if size > self.max_record_bytes:
            self._too_large(size, "the record has")
        identity = _document_id(key)
        if value is None:
            return Kind.DELETE, identity, None, None, None, self._untyped, timestamp, None
        fields = _fields_of_protobuf if headers and _is_protobuf(headers) else _fields_of_json
        text, metadata, time = fields(value)
        if text is None and metadata is None:
            _reject("no_text", "the record has neither text nor metadata")
        if text is not None and (not text or text.isspace()):
            _reject("no_text", "the text is empty")
        kind = Kind.PATCH if text is None else Kind.UPSERT
        whole, rest, typed = self._metadata(metadata) if metadata else ("{}", "{}", self._untyped)
        # Numbers can be longer when written again, as 1e15 is.
        if size - len(value) + len(whole) > self.max_record_bytes // _MOST_BYTES:
            grown = size - len(value) + len(whole.encode())
            if grown > self.max_record_bytes:
                self._too_large(grown, "with its metadata written out the record has")
        event_time = timestamp if time is None else _time(time)
        return kind, identity, text, whole, rest, typed, event_time, None

    @cached_property
    def _untyped(self) -> tuple[None, ...]:
        """The typed columns of a document that has no metadata."""
        return (None,) * len(self.columns)

    def _reference(self, original: Original) -> Original:
        """What of a record that is too large can be passed on, the source in a header beside it."""
        key = original.key if len(original.key or b"") <= MAX_ID_BYTES else None
        fits = len(key or b"") + _headers_size(original.headers) <= self.max_record_bytes
        return Original(key, None, original.headers if fits else ())

    def _too_large(self, size: int, what: str) -> NoReturn:
        _reject("too_large", f"{what} {size} bytes, more than {self.max_record_bytes}")

    def _metadata(self, fields: dict[str, Any]) -> tuple[str, str, tuple[Any, ...]]:
        """All of it as JSON, what no typed column takes as JSON, and the typed columns' values."""
        typed: list[object] = []
        for name, column_type in self.columns.items():
            value = fields.get(name)
            if value is not None:
                value = COLUMN_TYPES[column_type](name, value)
                if isinstance(value, float) and not math.isfinite(value):
                    _reject("not_finite", f"metadata {name!r} is no finite number")
            typed.append(value)
        try:
            whole = orjson.dumps(fields).decode()
        except orjson.JSONEncodeError as error:
            _reject("bad_schema", f"metadata can't be kept: {error}")
        if not self.columns:
            return whole, whole, ()
        rest = {name: value for name, value in fields.items() if name not in self.columns}
        return whole, orjson.dumps(rest).decode() if rest else "{}", tuple(typed)


def _carried(headers: Sequence[Headers]) -> dict[int, Headers]:
    """The headers that go on to the outputs, by the index of their record."""
    if not any(headers):
        return {}
    kept = {
        index: tuple(header for header in own if header[0] in CARRIED_HEADERS)
        for index, own in enumerate(headers)
        if own
    }
    return {index: own for index, own in kept.items() if own}
