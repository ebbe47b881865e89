"""Documents as JSON lines: what a line says, as the key and value of a source record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

import orjson

from operators.judging import SHOWN_CHARACTERS
from operators.records import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from operators.documents import Decoder

__all__ = ["BYTE_ORDER_MARK", "ESCAPED", "LineRecord", "WrongLineError", "parse_line"]

FIELDS: Final = frozenset({"id", "text", "metadata", "timestamp", "deleted"})
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
"""What some programs put before the first line."""

ESCAPED: Final = 8
"""How many times longer than its record a line may be: an escape has 6 bytes for one."""


class WrongLineError(Exception):
    """A line that stands for no record.

    Attributes:
        code: As a dead letter would have it.
        id: The document's id, where it can be told.
    """

    def __init__(self, message: str, code: str = "bad_schema", identity: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.id = identity


@dataclass(frozen=True, slots=True)
class LineRecord:
    """A line as the record that it stands for; `value` is None where the document is deleted."""

    id: str
    key: bytes
    value: bytes | None


def parse_line(
    text: bytes, decoder: Decoder, time_of: Callable[[Any], int] | None = None
) -> LineRecord:
    """The record that a line stands for, held to what the flow takes.

    Args:
        text: The line.
        decoder: Judges the record, as the flow does.
        time_of: Makes milliseconds of the field `timestamp`, or raises `ValueError`; unless given
            it must hold them.

    Raises:
        WrongLineError: It stands for none.
    """
    fields = _fields(text)
    identity = fields.pop("id", None)
    if not isinstance(identity, str):
        _refuse("id must be a string" if identity is not None else "has no id")
    try:
        if time_of is not None and fields.get("timestamp") is not None:
            fields["timestamp"] = time_of(fields["timestamp"])
        value = _value(fields)
    except ValueError as error:
        raise WrongLineError(f"timestamp {error}", identity=identity) from error
    except WrongLineError as error:
        error.id = identity
        raise
    key = identity.encode()
    document = decoder.decode(key, value, (), 0)
    if document.kind is Kind.DEAD and document.dead is not None:
        raise WrongLineError(document.dead.message, document.dead.code, identity)
    return LineRecord(identity, key, value)


def _fields(text: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        _refuse(f"not JSON: {error}", "bad_json")
    if not isinstance(fields, dict):
        _refuse("not a JSON object")
    unknown = sorted(fields.keys() - FIELDS)
    if unknown:
        _refuse(f"{unknown[0][:SHOWN_CHARACTERS]}: there is no such field; put it into metadata")
    return fields


def _value(fields: dict[str, Any]) -> bytes | None:
    """The record's value; None where the line deletes."""
    deleted = fields.pop("deleted", False)
    if not isinstance(deleted, bool):
        _refuse("deleted must be true or false")
    if deleted:
        if fields.get("text") is not None:
            _refuse("has a text and is deleted")
        return None
    if "text" in fields and fields["text"] is None:
        # A mere absence deletes nothing: it is more likely a slip than a wish.
        del fields["text"]
        if fields.get("metadata") is None:
            return None
    try:
        return orjson.dumps(fields)
    except orjson.JSONEncodeError as error:
        # It reads deeper nesting than it writes.
        _refuse(f"can't be kept: {error}")


def _refuse(message: str, code: str = "bad_schema") -> NoReturn:
    raise WrongLineError(message, code)
