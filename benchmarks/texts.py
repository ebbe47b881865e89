"""The documents: docstrings of the standard library and of the installed packages."""

from __future__ import annotations

import random
import re
import sysconfig
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Corpus", "docstrings", "gather", "shuffled", "stratum", "take"]

# A docstring with the line before it. Reading a file by its syntax tree takes 50 times as long.
_DOCSTRING: Final = re.compile(r':\n\s*[rR]?"""(.+?)"""', re.DOTALL)
_SHORT_CHARACTERS: Final = range(20, 200)
_MEDIUM_CHARACTERS: Final = range(200, 700)
_SEED: Final = 20


@dataclass(frozen=True, slots=True)
class Corpus:
    """Unlike texts, in random order.

    Attributes:
        short: First paragraphs of docstrings.
        medium: Whole docstrings.
    """

    short: Sequence[str]
    medium: Sequence[str]


def gather() -> Corpus:
    """Reads the docstrings; in some seconds, the same order each time."""
    short: set[str] = set()
    medium: set[str] = set()
    for _, docstring in docstrings():
        first = " ".join(docstring.split("\n\n", 1)[0].split())
        whole = " ".join(docstring.split())
        if len(first) in _SHORT_CHARACTERS:
            short.add(first)
        if len(whole) in _MEDIUM_CHARACTERS:
            medium.add(whole)
    return Corpus(shuffled(short), shuffled(medium))


def take(pool: Sequence[str], first: int, size: int) -> list[str]:
    """Some texts of a pool that no other `first` gives; numbered where the pool is used up."""
    return list(islice(_endless(pool), first, first + size))


def stratum(texts: Sequence[str], size: int, offset: int) -> list[str]:
    """A part of some texts with the lengths of the whole, in random order.

    Args:
        texts: The whole.
        size: Texts of the part.
        offset: Another number gives another part.
    """
    stride = max(1, len(texts) // max(1, size))
    part = sorted(texts, key=len)[offset % stride :: stride]
    return shuffled(part)[:size]


def docstrings() -> Iterator[tuple[str, str]]:
    """Each docstring, after the package or module that it is from."""
    for root in dict.fromkeys(sysconfig.get_path(name) for name in ("stdlib", "purelib")):
        for file in sorted(Path(root).rglob("*.py")):
            try:
                source = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            package = file.relative_to(root).parts[0]
            yield from ((package, docstring) for docstring in _DOCSTRING.findall(source))


def shuffled(texts: set[str] | list[str]) -> list[str]:
    """Some texts in random order, the same each time."""
    ordered = sorted(texts)
    random.Random(_SEED).shuffle(ordered)  # noqa: S311 - the same order each time
    return ordered


def _endless(pool: Sequence[str]) -> Iterator[str]:
    yield from pool
    for number in count(2):
        yield from (f"{text} ({number})" for text in pool)
