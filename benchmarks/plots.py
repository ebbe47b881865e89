"""What was found, as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.control import AUTO, FP32, NAIVE
from benchmarks.tables import names_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    Found = Mapping[str, Any]

__all__ = ["FRESHNESS", "THROUGHPUT", "draw"]

THROUGHPUT: Final = "benchmarks-throughput.svg"
FRESHNESS: Final = "benchmarks-freshness.svg"

# Text stays text, and a picture of the same figures is the same file.
_STYLE: Final[Any] = {"svg.fonttype": "none", "svg.hashsalt": "headrace", "font.size": 9}
_ALONE, _OURS, _THEIRS = "#b8bcc4", "#1f5fbf", "#d98b3a"
_MARKS: Final = "osD^vPX<>"
_NOTHING: Final = {"median": 0.0, "low": 0.0, "high": 0.0}


def draw(found: Found, folder: Path) -> list[Path]:
    """Draws all pictures.

    Args:
        found: A run's figures.
        folder: Where they go.

    Returns:
        Their files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_STYLE):
        drawn = {THROUGHPUT: _throughput(found)}
        if found["freshness"]:
            drawn[FRESHNESS] = _freshness(found)
        for name, figure in drawn.items():
            figure.savefig(folder / name, metadata={"Date": None})
    return [folder / name for name in drawn]


def _throughput(found: Found) -> Figure:
    """Documents for each CPU-second, a bar for each subject."""
    names = names_of(found)
    figure = Figure(figsize=(10, 5), layout="constrained")
    keys = _ordered([one for one in found["throughput"] if one["texts"] == "short"])
    labels = [_label(names[subject], processes) for subject, processes in keys]
    panels = figure.subplots(1, 2, sharey=True)
    for axes, kind in zip(panels, ("short", "medium"), strict=True):
        by_key = {
            (one["subject"], one["processes"]): one["docs_per_cpu_s"]
            for one in found["throughput"]
            if one["texts"] == kind
        }
        figures = [by_key.get(key, _NOTHING) for key in keys]
        medians = [one["median"] for one in figures]
        spread = [
            [one["median"] - one["low"] for one in figures],
            [one["high"] - one["median"] for one in figures],
        ]
        colours = [_colour(subject) for subject, _ in keys]
        bars = axes.barh(labels, medians, xerr=spread, color=colours, ecolor="#555555")
        axes.bar_label(bars, fmt="%.0f", padding=4)
        axes.set_title(f"{kind} texts", loc="left")
        axes.set_xlabel("docs for each CPU-second")
        axes.margins(x=0.15)
        _plain(axes)
    return figure


def _freshness(found: Found) -> Figure:
    """Milliseconds by load, a line for each subject: full p50, dashed p99."""
    names = names_of(found)
    keys = list(dict.fromkeys((one["subject"], one["processes"]) for one in found["freshness"]))
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    sinks = (("topic_ms", "to the topic"), ("table_ms", "to the table"))
    for axes, (sink, title) in zip(figure.subplots(1, 2, sharey=True), sinks, strict=True):
        for number, (subject, processes) in enumerate(keys):
            levels = [
                one
                for one in found["freshness"]
                if (one["subject"], one["processes"]) == (subject, processes)
                and one[sink]
                and one["load"] is not None
            ]
            if not levels:
                continue
            style: dict[str, Any] = {
                "color": f"C{number}",
                "marker": _MARKS[number % len(_MARKS)],
                "markersize": 4,
            }
            loads = [one["load"] * 100 for one in levels]
            label = _label(names[subject], processes)
            axes.plot(loads, [one[sink]["p50"] for one in levels], label=label, **style)
            axes.plot(loads, [one[sink]["p99"] for one in levels], linestyle="--", **style)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        axes.set_title(title, loc="left")
        axes.set_xlabel("load, in % of what each one drains")
        axes.grid(visible=True, which="both", axis="y", color="#ececec")
        _plain(axes)
    figure.axes[0].set_ylabel("milliseconds: p50 (line), p99 (dashed)")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _ordered(results: Sequence[Found]) -> list[tuple[str, int]]:
    """Subjects and processes, upwards from the most processes and the fewest documents."""
    ordered = sorted(results, key=lambda one: (-one["processes"], one["docs_per_cpu_s"]["median"]))
    return [(one["subject"], one["processes"]) for one in ordered]


def _label(name: str, processes: int) -> str:
    return f"{name}, {processes} proc."


def _colour(subject: str) -> str:
    if subject in (NAIVE, FP32, AUTO):
        return _ALONE
    return _OURS if subject.startswith("headrace") else _THEIRS


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
