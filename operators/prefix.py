"""What of a document's metadata is put before each of its chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from operators.records import Metadata

__all__ = ["prefixes_of"]


def prefixes_of(metadata: Metadata, field: str) -> list[str]:
    """A metadata field of each document; empty where it has none that is a string."""
    typed = metadata.typed.get(field)
    values = [_value(own, field) for own in metadata.json] if typed is None else typed
    return [value if isinstance(value, str) else "" for value in values]


def _value(fields: str | None, field: str) -> object:
    return orjson.loads(fields).get(field) if fields else None
