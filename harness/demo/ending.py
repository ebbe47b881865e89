"""What is shown at the end: the count, and how to go on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.demo.place import TABLE, typed
from harness.demo.shown import command_line, quoted
from harness.process import HOST

if TYPE_CHECKING:
    from harness.audit import Report
    from harness.demo.commands import Commands
    from harness.demo.place import Place
    from harness.demo.shown import Screen
    from harness.workload import Topics

__all__ = ["show_count", "show_way_on"]


def show_count(screen: Screen, topics: Topics, report: Report) -> None:
    """Show what was counted, and whether it is as it must be."""
    kinds = ", ".join(f"{count:,} {kind}s" for kind, count in sorted(report.outcomes.items()))
    screen.say(f"topic {topics.source}: {report.records:,} records")
    once, same = "; one for each record, in order", ", as a replay of the topic gives them"
    screen.say(f"topic {topics.embeddings}: {kinds}{once * report.clean}")
    screen.say(f"table {TABLE}: {report.table_rows:,} rows{same * report.clean}")
    if not report.clean:
        screen.say(f"Not as it must be: {report}")
    told = {name: count for name, count in report.faults.items() if count}
    told = {"missing": 0, "duplicates": 0} | told
    line = ", ".join(f"{name} {count}" for name, count in told.items())
    screen.say(line, style="bold green" if report.clean else "bold red")


def show_way_on(screen: Screen, place: Place, commands: Commands, took_s: float) -> None:
    """Show how to go on with what the demo leaves."""
    activate = Path(sys.executable).with_name("activate")
    lines = (
        "",
        f"It took {took_s:.0f} s. Kafka and the flow are stopped, {place.shown()} stays.",
        "To go on, first in each terminal, in the folder of the Makefile:",
        "",
        f"    . {quoted(typed(activate))}",
        f"    export HEADRACE_CONFIG={quoted(place.shown('headrace.toml'))}",
        "",
        "Kafka and the flow, each in a terminal of its own:",
        "",
        f"    {command_line(commands.broker)}",
        f"    {command_line(commands.flow)}",
        "",
        "Then look around, and write:",
        "",
        '    headrace search "open a network connection" -k 5',
        """    echo '{"id": "note", "text": "bread is made of flour"}' | headrace load -""",
        '    headrace search "how to bake" -k 1',
        f"    headrace status --recovery {quoted(place.shown('recovery'))}",
        f"    curl -s {HOST}:{place.metrics_port}/metrics | grep ^headrace_",
        "",
        "README.md says how to do this with a Kafka and documents of your own.",
    )
    for line in lines:
        screen.say(line)
