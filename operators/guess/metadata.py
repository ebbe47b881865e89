"""Which other fields are worth keeping, and of what type."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from operators.guess.fields import words_of
from operators.guess.looks import is_number, word_count
from operators.mapping.plan import Field as Place

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from operators.guess.fields import Field

__all__ = ["guess_columns", "guess_metadata"]

MOST: Final = 12
"""How many fields: a table of more columns is one that somebody should think about."""

LONG: Final = 120
"""Characters from which on a text is none to filter by."""

INT64: Final = 1 << 63
FLOATS: Final = frozenset(
    {
        *("price", "amount", "cost", "total", "score", "rating", "rate", "ratio", "lat", "lon"),
        *("lng", "latitude", "longitude", "weight", "height", "width", "length", "distance"),
        *("temperature", "percent", "share", "fare", "tip", "tax", "balance", "fee", "value"),
    }
)
"""Words of the names of measures, which may have a fraction though the sample has none."""

GENERIC: Final = frozenset(
    {"id", "name", "login", "type", "title", "number", "key", "value", "state", "status", "email"}
)
"""Names that say little without what they stand in."""

_BYTES: Final = re.compile(r"[A-Za-z0-9+/]+={1,2}")
_OTHER: Final = re.compile(r"[^a-z0-9]+")


def guess_metadata(
    fields: Sequence[Field], used: Collection[str | None], taken: Collection[str]
) -> dict[str, Place]:
    """Metadata fields by name, the least deep first.

    Args:
        fields: What is in the records.
        used: Pointers of what serves another purpose already.
        taken: Names that a column can't have.
    """
    worth = [
        (field, _type_of(field))
        for field in sorted(fields, key=lambda field: len(field.path))
        if field.pointer not in used
        and not field.is_constant
        and 4 * len(field.values) >= field.rows
    ]
    found: dict[str, Place] = {}
    for field, kind in [one for one in worth if one[1]][:MOST]:
        found[_name(field, {*taken, *found})] = Place(field.pointer, kind)
    return found


def guess_columns(fields: Sequence[Field], taken: Collection[str]) -> dict[str, str]:
    """Typed columns for metadata that has its names already.

    Args:
        fields: What is in the metadata.
        taken: Names that a column can't have.
    """
    types = {
        field.path[0]: _type_of(field)
        for field in fields
        if len(field.path) == 1 and field.path[0].isidentifier() and field.path[0] not in taken
    }
    numbers = {field.path[0] for field in fields if field.kind != "string"}
    found = {
        name: kind
        for name, kind in types.items()
        # Of this form no text is read as a number.
        if kind is not None and (kind == "string" or name in numbers)
    }
    return dict(list(found.items())[:MOST])


def _type_of(field: Field) -> str | None:
    """The type of a column for what is there; None where none is worth it."""
    if field.kind == "boolean":
        return "bool"
    if field.kind == "number":
        return "float64"
    if field.kind == "integer":
        fits = all(-INT64 <= value < INT64 for value in field.values)
        return "float64" if set(field.words) & FLOATS or not fits else "int64"
    if field.kind != "string":
        return None
    if set(field.words) & FLOATS and all(map(is_number, field.values)):
        return "float64"
    return "string" if all(map(_is_label, field.values)) else None


def _is_label(text: str) -> bool:
    """Whether a text is one to filter by: neither long, nor an address, nor bytes."""
    short = len(text) <= LONG and word_count(text) <= LONG // 10
    return short and "://" not in text and not _BYTES.fullmatch(text)


def _name(field: Field, taken: Collection[str]) -> str:
    """A column's name, made of the field's; of those around it where that is taken."""
    least = 2 if len(field.words) == 1 and field.words[0] in GENERIC else 1
    for length in range(min(least, len(field.path)), len(field.path) + 1):
        name = _column(field.path[-length:])
        if name not in taken:
            return name
    name = _column(("record", *field.path))
    number = 1
    while name in taken:
        number += 1
        name = f"{_column(field.path)}_{number}"
    return name


def _column(path: Sequence[str]) -> str:
    name = "_".join(_OTHER.sub("_", "_".join(words_of(part))).strip("_") for part in path)
    name = name.strip("_")
    return name if name and not name[0].isdigit() else f"field_{name}".strip("_")
