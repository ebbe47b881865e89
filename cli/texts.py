"""Texts of a file of JSON lines, as `headrace load` takes them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import orjson

from cli.errors import CommandError
from headrace.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["read_texts"]

STDIN: Final = "-"


def read_texts(file: Path) -> list[str]:
    """The texts of a file's lines; lines without one are passed over.

    Args:
        file: JSON lines, each an object that may have a `text`; `-` is standard input.

    Raises:
        UsageError: The file can't be read.
        CommandError: A line is wrong; the error has its number.
    """
    if str(file) == STDIN:
        return list(_texts_of(sys.stdin.buffer, str(file)))
    try:
        with file.open("rb") as stream:
            return list(_texts_of(stream, str(file)))
    except OSError as error:
        raise UsageError(f"--texts: {file}: {error.strerror}") from error


def _texts_of(lines: Iterable[bytes], name: str) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise CommandError(f"{name}: line {number}: not JSON: {error}") from error
        text = fields.get("text") if isinstance(fields, dict) else None
        if isinstance(text, str):
            yield text
        elif text is not None or not isinstance(fields, dict):
            raise CommandError(f"{name}: line {number}: must be an object with a text")
