"""Values that a deserialiser gave, in the forms that JSON has for them.

| value | form |
|---|---|
| bytes, Avro's fixed | base64, a string |
| decimal | its digits, a string: no digit is lost |
| date, time, timestamp | ISO 8601, a string; with `Z` where it is a moment, and not a local time |
| UUID | a string |
| enum | its name; a number where it has none |
| union, oneof | what is in it |
| map | an object |
| Protobuf's 64-bit integers | numbers, unlike in its own JSON mapping |
| Protobuf's well-known types | as in its JSON mapping: a timestamp is ISO 8601 |

A Protobuf message's fields keep the names of the schema. One without presence is there with its
default, since nobody can tell it from one that was set; any other is left out where it is not set.
"""

from __future__ import annotations

import math
from base64 import b64encode
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from operators.judging import reject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["plain"]

WELL_KNOWN: Final = "google.protobuf."
WRAPPER: Final = "Value"

DEEPEST: Final = 100
"""How many values may be inside one another: an Avro schema can be recursive, and JSON's readers
give up earlier than a deserialiser."""


def plain(value: object, depth: int = 0) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """The JSON form of a value.

    Raises:
        Rejected: It has none.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return _finite(value)
    if depth > DEEPEST:
        reject("bad_schema", f"more than {DEEPEST} values are inside one another")
    form = next((form for kind, form in _FORMS if isinstance(value, kind)), None)
    if form is None:
        reject("bad_schema", f"there is no JSON form of a {type(value).__name__}")
    return form(value, depth + 1)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        reject("not_finite", f"{value} is no finite number")
    return value


def _moment(value: datetime) -> str:
    text = value.isoformat()
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text


def _message(message: Message, depth: int) -> Any:  # noqa: ANN401 - a well-known type can be all
    name = message.DESCRIPTOR.full_name
    if name.startswith(WELL_KNOWN):
        return _well_known(message, name, depth)
    return dict(_fields(message, depth))


def _fields(message: Message, depth: int) -> Iterator[tuple[str, Any]]:
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        yield field.name, _field(field, getattr(message, field.name), depth)


def _field(field: Any, value: Any, depth: int) -> Any:  # noqa: ANN401 - what it holds
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        held = kind.fields_by_name["value"]
        return {_name(key): _one(held, one, depth) for key, one in value.items()}
    if field.is_repeated:
        return [_one(field, one, depth) for one in value]
    return _one(field, value, depth)


def _one(field: Any, value: object, depth: int) -> Any:  # noqa: ANN401 - what it holds
    if field.type == FieldDescriptor.TYPE_ENUM:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    return plain(value, depth)


def _name(key: object) -> str:
    """The name that a map's key has in an object."""
    return str(key).lower() if isinstance(key, bool) else str(key)


def _well_known(message: Message, name: str, depth: int) -> Any:  # noqa: ANN401 - what it holds
    if name.endswith(WRAPPER) and "value" in message.DESCRIPTOR.fields_by_name:
        return plain(message.value, depth)  # type: ignore[attr-defined]
    try:
        return plain(json_format.MessageToDict(message, preserving_proto_field_name=True), depth)
    except (json_format.SerializeToJsonError, TypeError, ValueError) as error:
        reject("bad_schema", f"there is no JSON form of a {name}: {error}")


# The first that fits; a datetime is a date, too.
_FORMS: Final[tuple[tuple[type, Callable[[Any, int], Any]], ...]] = (
    (dict, lambda value, depth: {_name(key): plain(one, depth) for key, one in value.items()}),
    (list, lambda value, depth: [plain(one, depth) for one in value]),
    (bytes, lambda value, _: b64encode(value).decode()),
    (Decimal, lambda value, _: str(value)),
    (datetime, lambda value, _: _moment(value)),
    (date, lambda value, _: value.isoformat()),
    (time, lambda value, _: value.isoformat()),
    (UUID, lambda value, _: str(value)),
    (Message, _message),
)
