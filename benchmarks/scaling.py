"""What more cores give, and what saturates first: calculated, and simulated to check that.

    python -m benchmarks.scaling [--measure] [--docs N]

Prints documents a second for 1 to 1,000 workers, the ceiling of each part, and how evenly lanes
spread over workers. The costs are `MEASURED`, or with `--measure` this machine's, which
`benchmarks.calibrate` takes from a real broker and real flows of one and of two processes; their
drains then stand beside the simulated ones. `benchmarks.deployment` has the calculation and the
simulation, `docs/scaling.md` explains both.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from benchmarks.calibrate import calibrate
from benchmarks.deployment import (
    Costs,
    Deployment,
    ceilings,
    limit,
    primaries,
    simulate,
    worker_s,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["MEASURED", "balance", "growth", "main", "tables_for"]


MEASURED: Final = Costs(
    document=0.00299,
    exchange=0.00188,
    transaction=0.00263,
    produced=0.000123,
    commit=0.0366,
    row=8.11e-05,
)
"""This project's two-core machine; see `docs/scaling.md` for what it is and when."""

PER_WORKER: Final = 20_000
LANES_A_WORKER: Final = 4


TABLE_LOAD: Final = 0.75
"""How much of its time a table's writer may be busy where there are several."""


def growth(costs: Costs, docs: int = PER_WORKER) -> Iterator[tuple[Deployment, str, float, float]]:
    """For 1 to 1,000 workers, with one table and with several: what limits, and at how much.

    Args:
        costs: Of each part.
        docs: Of the simulated drain, for each worker.

    Yields:
        What runs; what saturates first; documents a second by calculation and by simulation.
    """
    for workers in (1, 2, 10, 100, 1000):
        deployment = Deployment(workers, workers * LANES_A_WORKER)
        needed = tables_for(costs, deployment)
        for tables in sorted({1, needed}):
            chosen = replace(deployment, tables=tables)
            name, most = limit(costs, chosen)
            yield chosen, name, most, simulate(costs, chosen, docs * workers)


def tables_for(costs: Costs, deployment: Deployment) -> int:
    """How many tables it takes so that none of them saturates before what else limits."""
    found = ceilings(costs, deployment)
    one = TABLE_LOAD * found.pop("table") / deployment.tables
    return max(1, math.ceil(min(found.values()) / one))


def balance(partitions: int, workers: int) -> float:
    """The share of the workers' time that is used when the one with most lanes has no rest."""
    places = primaries(partitions, workers)
    return partitions / (workers * max(map(places.count, range(workers))))


BALANCES: Final = ((2, 2), (3, 2), (4, 2), (10, 8), (16, 8), (32, 8), (100, 96), (400, 96))


def show(costs: Costs, docs: int, out: Callable[[str], object]) -> None:
    """Print both tables, as Markdown."""
    out("| workers | tables | ceiling: workers | broker | table | first | docs/s | simulated |")
    out("|---|---|---|---|---|---|---|---|")
    for deployment, name, most, simulated in growth(costs, docs):
        found = ceilings(costs, deployment)
        figures = " | ".join(f"{found[part]:,.0f}" for part in ("workers", "broker", "table"))
        out(
            f"| {deployment.workers:,} | {deployment.tables:,} | {figures} | {name} | {most:,.0f}"
            f" | {simulated:,.0f} |"
        )
    out("\n| lanes | workers | of the workers' time used | simulated |\n|---|---|---|---|")
    for lanes, workers in BALANCES:
        # Tables enough, so that lanes alone decide.
        deployment = Deployment(workers, lanes, tables=min(lanes, workers))
        most = workers / worker_s(costs, deployment)
        used = simulate(costs, deployment, docs * workers) / most
        out(f"| {lanes} | {workers} | {balance(lanes, workers):.0%} | {used:.0%} |")
    out("\n| a key's share | most workers that help | docs/s at most |\n|---|---|---|")
    for share in (0.001, 0.01, 0.1, 0.5):
        out(f"| {share:.1%} | {1 / share:,.0f} | {1 / (share * costs.document):,.0f} |")


def main(arguments: Sequence[str] | None = None) -> int:
    """Calculate, simulate and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--measure", action="store_true", help="take this machine's costs")
    parser.add_argument("--docs", type=int, default=PER_WORKER, help="for each simulated worker")
    given = parser.parse_args(arguments)
    costs = MEASURED
    if given.measure:
        costs = calibrate(print)
    show(costs, given.docs, print)
    return 0


if __name__ == "__main__":
    sys.exit(main())
