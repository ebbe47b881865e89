"""Confluent's wire format: which schema a record was written by stands before it."""

from __future__ import annotations

from struct import Struct
from typing import Final

__all__ = ["SHOWN_CHARACTERS", "Unreadable", "in_short", "schema_id"]

MAGIC: Final = 0
"""The first byte of a record; the schema's id follows in four."""

MAX_ID: Final = (1 << 31) - 1

SHOWN_CHARACTERS: Final = 150
"""Of what a deserialiser says: it goes into a header of the dead letter."""

_FRAME: Final = Struct(">bI")


class Unreadable(Exception):  # noqa: N818 - it tells of a record, and is no error of its own
    """A record can't be read; the text says why, in one line."""


def schema_id(data: bytes) -> int:
    """The id of the schema by which a record was written.

    Raises:
        Unreadable: It is not in the wire format.
    """
    if len(data) < _FRAME.size:
        raise Unreadable(f"is not in the registry's wire format: has only {len(data)} bytes")
    magic, number = _FRAME.unpack_from(data)
    if magic != MAGIC or number > MAX_ID:
        start = data[: _FRAME.size].hex(" ")
        raise Unreadable(f"is not in the registry's wire format: it begins with {start}")
    return int(number)


def in_short(error: BaseException) -> str:
    """What an error says, in one line that is not too long."""
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= SHOWN_CHARACTERS else line[:SHOWN_CHARACTERS] + "…"
