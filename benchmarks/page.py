"""The figures of the benchmarks page, written between two markers; all around them is by hand."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from benchmarks.plots import draw
from benchmarks.tables import conditions, tables_of
from harness.process import ROOT
from headrace.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from benchmarks.tables import Table

__all__ = ["BEGIN", "END", "PAGE", "markdown", "write_page"]

PAGE: Final = ROOT / "docs" / "benchmarks.md"
BEGIN: Final = "<!-- Figures: written by python -m benchmarks --write-docs -->"
END: Final = "<!-- End of the figures -->"

_BETWEEN: Final = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)
_ALTERNATIVES: Final = {
    "benchmarks-throughput.svg": "Documents for each CPU-second, by subject",
    "benchmarks-freshness.svg": "Freshness by load, p50 and p99, to the topic and to the table",
}


def write_page(found: Mapping[str, Any], page: Path = PAGE) -> list[Path]:
    """Writes a run's tables and pictures into the page and the folder `images` beside it.

    Returns:
        The files written.

    Raises:
        UsageError: The page has no markers.
    """
    text = page.read_text(encoding="utf-8")
    if not _BETWEEN.search(text):
        raise UsageError(f"{page}: no lines {BEGIN!r} and {END!r} to write between")
    images = draw(found, page.parent / "images")
    names = [f"images/{image.name}" for image in images]
    between = f"{BEGIN}\n{markdown(found, names)}\n{END}"
    page.write_text(_BETWEEN.sub(lambda _: between, text), encoding="utf-8")
    return [page, *images]


def markdown(found: Mapping[str, Any], images: Iterable[str]) -> str:
    """The figures as Markdown."""
    parts = ["\n".join(f"- {line}" for line in conditions(found))]
    parts += [f"![{_ALTERNATIVES[image.split('/')[-1]]}]({image})" for image in images]
    parts += [_table(one) for one in tables_of(found)]
    return "\n\n".join(parts)


def _table(table: Table) -> str:
    rule = [*("---" for _ in range(table.texts)), *("---:" for _ in table.headings[table.texts :])]
    rows = ([_cell(text) for text in row] for row in table.rows)
    lines = (table.headings, rule, *rows)
    return f"**{table.title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", r"\|").split())
