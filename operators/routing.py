"""Which table a document goes to, where a flow writes one for each tenant, or country, or kind.

The name is made from the record by a template such as `docs_{/tenant}`. It becomes a folder's name,
so what a record says is held to the characters that names of tables have.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

from headrace.errors import UsageError
from operators.judging import kind_of, reject, shown
from operators.pointer import Pointer
from operators.template import template_parts

__all__ = ["RESERVED", "SETTING", "TABLE", "Route", "directory_name", "is_template"]

SETTING: Final = "table.name"

TABLE: Final = "table name"
"""The typed column that carries it from the decoder to the table's sink: no metadata field can have
a name with a space as a column of its own."""

RESERVED: Final = "_headrace_"
"""How the names of Headrace's own tables begin."""

LONGEST: Final = 200
SHOWN: Final = 60
"""How much of a template is in its directory's name, for people; the rest of that is a hash."""

_PIECE: Final = re.compile(r"[a-zA-Z0-9_.-]+")
_OTHER: Final = re.compile(r"[^a-zA-Z0-9_.]+")


def is_template(name: str) -> bool:
    """Whether a table's name is made from each record."""
    return "{" in name or "}" in name


def directory_name(template: str) -> str:
    """The name of the table that says which of the others each document is in."""
    shown = _OTHER.sub("-", template).strip("-")[:SHOWN]
    return f"{RESERVED}directory-{shown}-{blake2b(template.encode(), digest_size=4).hexdigest()}"


class Route:
    """Names the table of a record.

    Args:
        template: The name, with pointers in it.

    Attributes:
        before: The name's beginning, which all tables share.
        after: Its end.

    Raises:
        UsageError: It can't be the name of a table.
    """

    def __init__(self, template: str) -> None:
        self._parts = template_parts(template, SETTING)
        for part in self._parts:
            _check(part, template)
        first, last = self._parts[0], self._parts[-1]
        self.before = first if isinstance(first, str) else ""
        self.after = last if isinstance(last, str) else ""
        if self.before.startswith(RESERVED):
            raise UsageError(f"{SETTING}: {template!r}: names of {RESERVED}... are Headrace's own")

    @property
    def fields(self) -> frozenset[str]:
        """The fields of a record that the name is made of."""
        return frozenset(part.field for part in self._parts if isinstance(part, Pointer))

    def meets(self, other: Route) -> bool:
        """Whether a name could be made by both."""
        return _fits(self.before, other.before) and _fits(self.after[::-1], other.after[::-1])

    def makes(self, name: str) -> bool:
        """Whether it could make a name."""
        longer = len(name) > len(self.before) + len(self.after)
        return longer and name.startswith(self.before) and name.endswith(self.after)

    def __call__(self, record: object) -> str:
        """The name of a record's table.

        Raises:
            Rejected: The record does not say, or says what can't be in a name.
        """
        name = "".join(
            [part if isinstance(part, str) else _piece(part, record) for part in self._parts]
        )
        if len(name) > LONGEST:
            reject("bad_schema", f"{SETTING}: {name[:40]}... is longer than {LONGEST} characters")
        if name.startswith(RESERVED):
            reject("bad_schema", f"{SETTING}: {name}: names of {RESERVED}... are Headrace's own")
        return name


def _fits(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _check(part: str | Pointer, template: str) -> None:
    if isinstance(part, Pointer):
        if part.optional:
            raise UsageError(
                f"{SETTING}: {template!r}: {part} can't be optional: a table has a name"
            )
    elif not _PIECE.fullmatch(part):
        raise UsageError(f"{SETTING}: {template!r}: a name has letters, digits, '_', '-' and '.'")


def _piece(pointer: Pointer, record: object) -> str:
    found = pointer.need(record)
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    if not isinstance(found, str):
        reject(
            "bad_schema", f"{pointer}: must be text or an integer, is {kind_of(found)} ({SETTING})"
        )
    if not _PIECE.fullmatch(found):
        reject(
            "bad_schema",
            f"{pointer}: {shown(found)} can't be in a table's name, which has letters, digits, "
            f"'_', '-' and '.' ({SETTING})",
        )
    return found
