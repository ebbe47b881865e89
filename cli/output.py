"""How commands print: one JSON document, or text for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["ago", "emit", "plain", "say", "show_table", "shown_bytes"]

PIPED_WIDTH: Final = 160
"""Characters of a line where nothing tells how wide it may be."""

WIDE: Final = 24
"""The least characters of a table's wide column."""

NARROW: Final = 32
"""The most of any other."""

_UNITS: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


def emit(data: object) -> None:
    """Print data as one JSON document."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def say(line: str, style: str | None = None) -> None:
    """Print one line, however long it is."""
    _console().print(plain(line), style=style, soft_wrap=True)


def show_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], wide: str = "", *, cut: bool = False
) -> None:
    """Print rows under headings.

    Args:
        columns: The headings; numbers are put to the right of theirs.
        rows: A value for each column, None for none.
        wide: The column that gets what room the others leave.
        cut: Whether its values are cut to that room; otherwise they take several lines.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, expand=bool(wide))
    held = [list(row) for row in rows]
    for index, name in enumerate(columns):
        if name == wide:
            overflow: Literal["ellipsis", "fold"] = "ellipsis" if cut else "fold"
            table.add_column(name, ratio=1, min_width=WIDE, no_wrap=cut, overflow=overflow)
        else:
            numbers = any(isinstance(row[index], int | float) for row in held)
            justify: Literal["right", "left"] = "right" if numbers else "left"
            table.add_column(name, justify=justify, max_width=NARROW, overflow="fold")
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
