"""What all decoders judge alike: sizes, encodings, syntax; and a record as a dead letter."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import orjson
from google.protobuf.message import DecodeError, Message

from operators.records import CARRIED_HEADERS, DeadLetter, Original

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operators.records import Headers

__all__ = [
    "MAX_ID_BYTES",
    "MAX_TIME_MS",
    "MILLISECONDS_FROM",
    "MIN_TIME_MS",
    "SHOWN_CHARACTERS",
    "Rejected",
    "as_object",
    "carried",
    "dead_letter",
    "identity_of",
    "is_protobuf",
    "key_identity",
    "kind_of",
    "milliseconds",
    "parse_json",
    "parse_message",
    "parse_object",
    "record_size",
    "reject",
    "shown",
    "too_large",
]

PROTOBUF: Final = b"application/x-protobuf"
"""What a record's header `content-type` says where its value is no JSON."""

MAX_ID_BYTES: Final = 1024
MIN_TIME_MS: Final = -62_135_596_800_000  # 0001-01-01, the first day that a datetime can show
MAX_TIME_MS: Final = 253_402_300_799_999  # the end of 9999

MILLISECONDS_FROM: Final = 100_000_000_000
"""From here on a number counts milliseconds: in seconds it would be the year 5138, while in
milliseconds it is March 1973."""

SHOWN_CHARACTERS: Final = 100
"""Of a value that a message shows: a dead letter has its message in a header, beside the record."""

AnyMessage = TypeVar("AnyMessage", bound=Message)


class Rejected(Exception):  # noqa: N818 - control flow inside the decoders, not an error of its own
    """A record can't be decoded.

    Attributes:
        code: One of the stable codes of dead letters.
        message: What is wrong with it, for a person.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def reject(code: str, message: str) -> NoReturn:
    """Give a record up."""
    raise Rejected(code, message)


def kind_of(value: object) -> str:
    """What JSON calls a value."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    names |= {int: "an integer", float: "a number", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def shown(value: object) -> str:
    """A value in a message: as it is where it is short and plain, else what JSON calls it."""
    plain = isinstance(value, str | int | float | bool) or value is None
    text = repr(value) if plain else ""
    return text if 0 < len(text) <= SHOWN_CHARACTERS else kind_of(value)


def key_identity(key: bytes | None, what: str) -> str:
    """The id that a record's key is.

    Args:
        key: The key.
        what: Whose id it is.

    Raises:
        Rejected: It is none.
    """
    if key is None:
        reject("missing_key", f"the record has no key; the key is the {what}'s id")
    if not 1 <= len(key) <= MAX_ID_BYTES:
        reject("bad_key", f"the key has {len(key)} bytes; an id has 1 to {MAX_ID_BYTES}")
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        reject("bad_key", f"the key is not UTF-8: {error.reason} at byte {error.start}")


def identity_of(found: object, place: object) -> str:
    """The id that a value of a record is: text, or an integer.

    Args:
        found: The value.
        place: Where it is, for the error.

    Raises:
        Rejected: It is none.
    """
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    if not isinstance(found, str):
        reject("bad_key", f"{place}: an id is text or an integer, this is {kind_of(found)}")
    size = len(found.encode(errors="replace"))
    if not 1 <= size <= MAX_ID_BYTES:
        reject("bad_key", f"{place}: has {size} bytes; an id has 1 to {MAX_ID_BYTES}")
    return found


def record_size(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """The bytes of a record."""
    size = len(key or b"") + len(value or b"")
    return size + _headers_size(headers) if headers else size


def too_large(size: int, most: int, what: str = "the record has") -> NoReturn:
    """Give a record up for its size."""
    reject("too_large", f"{what} {size} bytes, more than {most}")


def dead_letter(fault: Rejected, original: Original, most: int) -> DeadLetter:
    """The dead letter of a record that was given up.

    Args:
        fault: Why.
        original: The record.
        most: The bytes that a record may have; of a larger one only what fits is passed on, its
            source in a header beside it.
    """
    if fault.code == "too_large":
        key = original.key if len(original.key or b"") <= MAX_ID_BYTES else None
        fits = len(key or b"") + _headers_size(original.headers) <= most
        original = Original(key, None, original.headers if fits else ())
    return DeadLetter(fault.code, fault.message, original)


def parse_object(value: bytes, what: str) -> dict[str, Any]:
    """The JSON object, where NaN and the infinities are refused by their own code.

    Raises:
        Rejected: It is none.
    """
    found = parse_json(value)
    return found if isinstance(found, dict) else as_object(found, what)


def parse_json(value: bytes, what: str = "the value") -> Any:  # noqa: ANN401 - any JSON value
    """What JSON holds, where NaN and the infinities are refused by their own code.

    Args:
        value: The JSON.
        what: What it is, for the error.

    Raises:
        Rejected: It is none.
    """
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        _reject_json(value, what, error)


def is_protobuf(headers: Headers) -> bool:
    """Whether a record's headers say that its value is Protobuf."""
    return any(
        name.lower() == "content-type" and (value or b"").split(b";")[0].strip().lower() == PROTOBUF
        for name, value in headers
    )


def parse_message(value: bytes, kind: type[AnyMessage]) -> AnyMessage:
    """The message that a value is.

    Raises:
        Rejected: It is none of that kind.
    """
    try:
        return kind.FromString(value)
    except DecodeError as error:
        reject("bad_schema", f"the value is no {kind.DESCRIPTOR.full_name}: {error}")


def as_object(value: object, what: str) -> dict[str, Any]:
    """The JSON object that a value is.

    Raises:
        Rejected: It is none.
    """
    if not isinstance(value, dict):
        reject("bad_schema", f"{what} must be a JSON object, is {kind_of(value)}")
    return value


def milliseconds(timestamp: float) -> int:
    """A timestamp in milliseconds since 1970.

    Args:
        timestamp: Seconds, with or without a fraction, or milliseconds; not negative.

    Raises:
        ValueError: It is before 1970, or after 9999 in either unit.
    """
    if not 0 <= timestamp <= MAX_TIME_MS:
        raise ValueError("must be seconds or milliseconds since 1970, up to the year 9999")
    return round(timestamp if timestamp >= MILLISECONDS_FROM else timestamp * 1000)


def carried(headers: Sequence[Headers]) -> dict[int, Headers]:
    """The headers that go on to the outputs, by the index of their record."""
    if not any(headers):
        return {}
    kept = {
        index: tuple(header for header in own if header[0] in CARRIED_HEADERS)
        for index, own in enumerate(headers)
        if own
    }
    return {index: own for index, own in kept.items() if own}


def _headers_size(headers: Headers) -> int:
    """The bytes of a record's headers."""
    return sum(len(name) + len(value or b"") for name, value in headers)


def _reject_json(value: bytes, what: str, reason: orjson.JSONDecodeError) -> NoReturn:
    try:
        value.decode()
    except UnicodeDecodeError as error:
        reject("bad_utf8", f"{what} is not UTF-8: {error.reason} at byte {error.start}")
    _reject_non_finite(value)
    reject("bad_json", f"{what} is not JSON: {reason}")


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        told = number if len(number) <= SHOWN_CHARACTERS else "a number of many digits"
        reject("not_finite", f"{told} is no finite number")
    return value


def _reject_non_finite(value: bytes) -> None:
    """Refuse, by its own code, JSON whose fault is a number that is none."""
    try:
        json.loads(value, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        return
