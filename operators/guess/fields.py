"""What is in a sample's records, place by place: how often, and what it is like."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["Field", "fields_of", "words_of"]

MAX_DEPTH: Final = 5
"""How deep objects are looked into."""

MAX_FIELDS: Final = 500
"""How many places: of an object whose names are data there is no end."""

MAX_TOKEN: Final = 100
"""Characters of a name; a longer one is data."""

_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^a-zA-Z0-9]+")


@dataclass(frozen=True)
class Field:
    """A place in the records.

    Attributes:
        path: The names that lead to it.
        values: What is there, of each record that has something there, in order.
        rows: How many records there are.
    """

    path: tuple[str, ...]
    values: Sequence[Any]
    rows: int

    @property
    def pointer(self) -> str:
        """Where it is, as settings say it."""
        return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in self.path)

    @property
    def is_constant(self) -> bool:
        """Whether it is the same in several records."""
        return self.distinct == 1 < len(self.values)

    @property
    def always(self) -> bool:
        """Whether each record has something there."""
        return len(self.values) == self.rows

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words of its own name, in small letters."""
        return words_of(self.path[-1])

    @cached_property
    def distinct(self) -> int:
        """How many different values there are."""
        return len(set(map(_form, self.values)))

    @cached_property
    def kind(self) -> str:
        """What all values are: `string`, `integer`, `number`, `boolean`, `list` or `mixed`."""
        kinds = set(map(_kind, self.values))
        if kinds == {"integer", "number"}:
            return "number"
        return kinds.pop() if len(kinds) == 1 else "mixed"


def words_of(name: str) -> tuple[str, ...]:
    """A name's words, in small letters: of `CreationDate` creation and date."""
    return tuple(part.lower() for part in _CAMEL.split(name) if part)


def fields_of(rows: Sequence[Mapping[str, Any]]) -> list[Field]:
    """All places of all records that hold no object, in the order in which they come."""
    found: dict[tuple[str, ...], list[Any]] = {}
    for row in rows:
        for path, value in _leaves(row, ()):
            if path in found or len(found) < MAX_FIELDS:
                found.setdefault(path, []).append(value)
    # What is an object in other records is no place for a value.
    inner = {path[:length] for path in found for length in range(1, len(path))}
    return [Field(path, values, len(rows)) for path, values in found.items() if path not in inner]


def _leaves(
    row: Mapping[str, Any], above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], object]]:
    for name, value in row.items():
        path = (*above, name)
        # A pointer that ends in a question mark would mean another thing.
        if value is None or not name or len(name) > MAX_TOKEN or name.endswith("?"):
            continue
        if isinstance(value, dict):
            if len(path) < MAX_DEPTH:
                yield from _leaves(value, path)
        else:
            yield path, value


def _form(value: object) -> bytes:
    return orjson.dumps(value)


def _kind(value: object) -> str:
    names: Iterable[tuple[type, str]] = (
        (bool, "boolean"),
        (int, "integer"),
        (float, "number"),
        (str, "string"),
    )
    return next((name for kind, name in names if isinstance(value, kind)), "list")
