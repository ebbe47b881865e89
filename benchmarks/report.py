"""What was found, on the terminal and as JSON."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Shown

from benchmarks.figures import ready
from benchmarks.tables import conditions, tables_of
from headrace.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.plan import Run
    from benchmarks.tables import Table

__all__ = ["document", "read", "show", "write"]

VERSION: Final = 2
_WIDTH: Final = 200


def document(run: Run, machine: Mapping[str, Any], quiet: Mapping[str, float]) -> dict[str, Any]:
    """All figures of a run, ready for JSON."""
    return {
        "version": VERSION,
        "date": time.strftime("%Y-%m-%d"),
        "size": asdict(run.size),
        "machine": dict(machine),
        "rival_versions": dict(run.rival_versions),
        "quiet": dict(quiet),
        "model": {name: run.model[name] for name in ("name", "runtime", "precision", "reason")},
        "subjects": [
            {"name": one.name, "title": one.title, "guarantee": one.guarantee}
            for one in run.subjects
        ],
        "failed": [
            {"subject": subject, "processes": processes, "reason": reason}
            for (subject, processes), reason in run.failed.items()
        ],
        "throughput": ready(run.results),
        "freshness": run.freshness,
        "trials": [asdict(one) for one in run.trials],
    }


def write(found: Mapping[str, Any], path: Path) -> None:
    """Writes figures as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Figures that were written.

    Raises:
        UsageError: There are none, or of another version.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: no figures there: {error}") from error
    if found.get("version") != VERSION:
        raise UsageError(f"{path}: figures of version {found.get('version')}: measure anew")
    return found


def show(found: Mapping[str, Any]) -> None:
    """Prints the machine and the tables."""
    console = Console(width=_WIDTH, highlight=False)
    for line in conditions(found):
        console.print(escape(line))
    for one in tables_of(found):
        console.print()
        console.print(_shown(one))


def _shown(table: Table) -> Shown:
    shown = Shown(title=escape(table.title), title_justify="left")
    for index, heading in enumerate(table.headings):
        shown.add_column(escape(heading), justify="left" if index < table.texts else "right")
    for row in table.rows:
        shown.add_row(*map(escape, row))
    return shown
