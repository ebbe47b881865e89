"""JSON pointers (RFC 6901): where something is in a record.

`/title` is a field, `/tags/0` the first entry of a list, the empty pointer the whole record; `~1`
stands for a slash in a name and `~0` for a tilde. One thing is added: a pointer that ends in `?`
may find nothing, or null.
"""

from __future__ import annotations

import re
from typing import Final

from headrace.errors import UsageError
from operators.judging import reject

__all__ = ["Pointer"]

OPTIONAL: Final = "?"

_FORM: Final = re.compile(r"(/([^~]|~[01])*)?")
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")


class Pointer:
    """A place in a record.

    Args:
        text: The pointer.
        setting: Which setting it stands in, for errors.

    Raises:
        UsageError: It is none.
    """

    def __init__(self, text: str, setting: str) -> None:
        bare = text.removesuffix(OPTIONAL)
        if not _FORM.fullmatch(bare):
            raise UsageError(
                f"{setting}: {text!r}: is no JSON pointer; it begins with a slash, as /title does"
            )
        self.text = bare
        self.optional = bare != text
        self.setting = setting
        parts = bare.split("/")[1:]
        self._tokens = tuple(part.replace("~1", "/").replace("~0", "~") for part in parts)

    @property
    def field(self) -> str:
        """The field of the record that it is in; empty if it is the whole of it."""
        return self._tokens[0] if self._tokens else ""

    def __str__(self) -> str:
        return self.text or "the record"

    def find(self, record: object) -> object:
        """What is there; None where nothing is, or null."""
        found = record
        for token in self._tokens:
            if isinstance(found, dict):
                found = found.get(token)
            elif isinstance(found, list):
                found = _entry(found, token)
            else:
                return None
        return found

    def need(self, record: object, code: str = "bad_schema") -> object:
        """What is there; None only where that is allowed.

        Args:
            record: The record.
            code: Of the dead letter that it becomes if nothing is there.

        Raises:
            Rejected: Nothing is there, or null.
        """
        found = self.find(record)
        if found is None and not self.optional:
            reject(code, f"{self}: nothing is there ({self.setting})")
        return found


def _entry(entries: list[object], token: str) -> object:
    if not _INDEX.fullmatch(token) or int(token) >= len(entries):
        return None
    return entries[int(token)]
