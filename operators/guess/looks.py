"""What a text looks like, other than prose: an address, a time, a number, a name of a thing."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["is_number", "looks_like_code", "word_count"]

_CODE: Final = re.compile(
    r"""
    [a-z][a-z0-9+.-]*://\S*                  # an address of the web
    | [^@\s]+@[^@\s]+\.[^@\s]+               # of mail
    | \d{4}-\d\d-\d\d([T\ ][\d:.,]+)?\s?([A-Z]{1,4}|[+-]\d\d:?\d\d)?  # a time
    | [0-9a-f-]{32,}                         # a hash, a UUID
    | [A-Za-z0-9+/]{40,}={0,2}               # bytes
    | [+-]?[\d.,:\ ]+                        # numbers
    | [/.~]?(/[^\s/]+)+/?                    # a path
    | [{\[].*[}\]]                           # JSON within JSON
    """,
    re.VERBOSE | re.DOTALL,
)
_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def looks_like_code(text: str) -> bool:
    """Whether it is made for machines: an address, a time, a number, a hash, a path."""
    return _CODE.fullmatch(text.strip()) is not None


def is_number(text: str) -> bool:
    """Whether it is a number, as decimals are written in JSON where they must be exact."""
    return _NUMBER.fullmatch(text) is not None


def word_count(text: str) -> int:
    """How many words it has: what stands between blanks, or of scripts without them, by length."""
    words = len(text.split())
    letters = sum("\u3040" <= c <= "\u9fff" or "\uac00" <= c <= "\ud7af" for c in text)
    return max(words, letters // 2)
