"""What was found, as tables for people and as JSON for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.control import AUTO, FP32, NAIVE, NAIVE_ROWS
from benchmarks.figures import FLOW, ready

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.figures import Figure, Result
    from benchmarks.plan import Run

__all__ = ["document", "show", "write"]

VERSION: Final = 1
_WIDTH: Final = 150
_TIMES: Final = "\u00d7"  # the sign for "times"
_CAPTION: Final = (
    rf"median \[lowest-highest] of the rounds; {_TIMES}: of the control in the same round, "
    "on as many cores"
)


def document(run: Run, machine: Mapping[str, Any], quiet: Mapping[str, float]) -> dict[str, Any]:
    """All figures of a run, ready for JSON."""
    return {
        "version": VERSION,
        "size": asdict(run.size),
        "machine": dict(machine),
        "quiet": dict(quiet),
        "model": run.model,
        "throughput": ready(run.results),
        "freshness": run.freshness,
        "trials": [asdict(one) for one in run.trials],
    }


def write(found: Mapping[str, Any], path: Path) -> None:
    """Writes figures as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def show(run: Run, machine: Mapping[str, Any], quiet: Mapping[str, float]) -> None:
    """Prints the machine and the tables."""
    console = Console(width=_WIDTH, highlight=False)
    _show_machine(console, run, machine, quiet)
    names = _names(run.model)
    for kind in dict.fromkeys(one.texts for one in run.results):
        console.print(_throughput([one for one in run.results if one.texts == kind], names))
    console.print(_freshness(run.freshness, run.size.seconds))


def _show_machine(
    console: Console, run: Run, machine: Mapping[str, Any], quiet: Mapping[str, float]
) -> None:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    console.print(
        f"{machine['processor']} ({', '.join(machine['abilities'])}), {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, {machine['system']}, Python {machine['python']}"
    )
    console.print(versions)
    console.print(
        f"{run.model['name']}, {run.model['runtime']} {run.model['precision']}: "
        f"{run.model['reason']}"
    )
    console.print(
        f"{run.size.docs} short texts, {run.size.rounds} rounds, {quiet['seconds']:.0f} s; "
        f"meanwhile other programs used {quiet['cores_of_others']:.2f} cores, "
        f"and the host withheld {quiet['cores_stolen']:.2f}\n"
    )


def _names(model: Mapping[str, Any]) -> dict[str, str]:
    return {
        NAIVE: f"onnxruntime fp32, {NAIVE_ROWS} at a time",
        FP32: "onnxruntime fp32 (control)",
        AUTO: f"{model['runtime']} {model['precision']}",
        FLOW: "the flow",
    }


def _throughput(results: Sequence[Result], names: Mapping[str, str]) -> Table:
    tokens = next((one.tokens for one in results if one.subject == FP32 and one.tokens), 0.0)
    table = Table(
        title=f"{results[0].texts} texts, {tokens:.0f} tokens on average", caption=_CAPTION
    )
    table.add_column("cores", justify="right")
    table.add_column("", no_wrap=True)
    for heading in ("docs/s", _TIMES, "docs/CPU-s", _TIMES, "to table/s", "around model"):
        table.add_column(heading, justify="right", no_wrap=True)
    for processes, rows in groupby(results, lambda one: one.processes):
        for one in rows:
            table.add_row(str(processes), names[one.subject], *_cells(one))
        table.add_section()
    return table


def _cells(one: Result) -> list[str]:
    return [
        _figure(one.docs_per_s, "{:.0f}"),
        _figure(one.docs_per_s_ratio, "{:.2f}"),
        _figure(one.docs_per_cpu_s, "{:.0f}"),
        _figure(one.docs_per_cpu_s_ratio, "{:.2f}"),
        _figure(one.table_docs_per_s, "{:.0f}"),
        _figure(one.around_model, "{:.0%}"),
    ]


def _figure(figure: Figure | None, form: str) -> str:
    if figure is None:
        return ""
    median, low, high = (form.format(v) for v in (figure.median, figure.low, figure.high))
    if figure.low == figure.high:
        return median
    return rf"{median} \[{low}-{high}]"


def _freshness(levels: Sequence[Mapping[str, Any]], seconds: float) -> Table:
    table = Table(
        title=f"freshness, one process, {seconds:.0f} s each: milliseconds from the document's "
        "timestamp until a reader saw it"
    )
    for heading in ("load", "docs/s", "topic p50", "p99", "table p50", "p99", "cores"):
        table.add_column(heading, justify="right")
    for one in levels:
        times = [one[sink][point] for sink in ("topic_ms", "table_ms") for point in ("p50", "p99")]
        table.add_row(
            f"{one['load']:.0%}",
            f"{one['docs_per_s']:.0f}",
            *(f"{value:.0f}" for value in times),
            f"{one['cores']:.2f}",
        )
    return table
