"""How commands print: one JSON document, or text for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["ago", "emit", "plain", "say", "show_table", "shown_bytes"]

PIPED_WIDTH: Final = 160
"""Characters of a line where nothing tells how wide it may be."""

_UNITS: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


def emit(data: object) -> None:
    """Print data as one JSON document."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def say(line: str, style: str | None = None) -> None:
    """Print one line, however long it is."""
    _console().print(plain(line), style=style, soft_wrap=True)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], wide: str = "") -> None:
    """Print rows under headings.

    Args:
        columns: The headings; numbers are put to the right of theirs.
        rows: A value for each column, None for none.
        wide: The column whose values are cut to what room the others leave.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    held = [list(row) for row in rows]
    for index, name in enumerate(columns):
        numbers = any(isinstance(row[index], int | float) for row in held)
        cut = {"no_wrap": True, "overflow": "ellipsis"} if name == wide else {"overflow": "fold"}
        table.add_column(name, justify="right" if numbers else "left", **cut)
    for row in held:
        table.add_row(*(_cell(value) for value in row))
    _console().print(table)


def plain(text: str) -> str:
    """Text on one line, without the characters by which a document could steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def shown_bytes(value: bytes | None) -> str | None:
    """Bytes as text, whatever they are."""
    return None if value is None else value.decode(errors="backslashreplace")


def ago(seconds: float) -> str:
    """A span of time, in its largest unit."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(0.0, seconds) * 1000:.0f} ms"


def _console() -> Console:
    # Made for each use: it looks at standard output as it is then. Values are shown as they are.
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    return console


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else plain(str(value))
