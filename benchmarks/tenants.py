"""What it costs to write a commit to many tables instead of one.

    python -m benchmarks.tenants [--tables N,N,...] [--rows N] [--commits N] [--held N] [--rounds N]

Rows of random vectors, of documents of which half are there already, are committed by the writers
themselves, in this process, to one table and to several in turns. Prints for each number of tables
how long a commit takes and its CPU time, each as a multiple of the one table's in the same round:
the median of the rounds, and the least and the most.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

import numpy as np
import structlog

from headrace.errors import HeadraceError, UsageError
from operators.encoding import Encoded
from operators.records import Kind, Lane, Metadata, OutcomeBatch
from operators.routing import TABLE
from sinks.directory import RoutedSchema
from sinks.maintenance import Upkeep
from sinks.routed import RoutedStore
from sinks.router import RoutedWriter
from sinks.rows import table_rows
from sinks.schema import TableSchema
from sinks.store import TableStore
from sinks.writer import TableWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Cost", "Plan", "main", "measure", "told"]

DIMENSION: Final = 384
LANE: Final = Lane("documents", 0)
UPKEEP: Final = Upkeep(index_rows=1 << 40, tombstone_retention_s=86_400.0, text_index=True)


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        rows: Of a commit.
        commits: That are timed.
        held: Documents that the tables have before.
        rounds: Of all numbers of tables.
    """

    rows: int
    commits: int
    held: int
    rounds: int


@dataclass(frozen=True)
class Cost:
    """What a commit took.

    Attributes:
        ms: The median of the commits, with the upkeep after each.
        cpu_ms: Of all together, for each.
    """

    ms: float
    cpu_ms: float


def measure(tables: Sequence[int], plan: Plan, say: Callable[[str], object]) -> list[list[Cost]]:
    """Commit the same rows to one table and to several, in turns.

    Args:
        tables: How many, each; 0 for one table without a directory.
        plan: What is measured.
        say: Takes what is found, round by round.

    Returns:
        Of each round, the costs in the order of the numbers.
    """
    found: list[list[Cost]] = []
    for number in range(plan.rounds):
        order = list(enumerate(tables))
        costs: dict[int, Cost] = {}
        for place, several in order if number % 2 == 0 else reversed(order):
            with tempfile.TemporaryDirectory(prefix="headrace-tenants-") as folder:
                costs[place] = _cost(Path(folder), several, plan)
        found.append([costs[place] for place, _ in order])
        shown = (f"{_named(several)} {costs[place].ms:,.1f} ms" for place, several in order)
        say(f"round {number + 1}: a commit of {plan.rows} rows takes: {', '.join(shown)}")
    return found


def told(tables: Sequence[int], rounds: Sequence[Sequence[Cost]]) -> Iterator[str]:
    """A line for each number behind the first: how many times what the first takes."""
    for place, several in enumerate(tables[1:], 1):
        times = [costs[place].ms / costs[0].ms for costs in rounds]
        work = [costs[place].cpu_ms / costs[0].cpu_ms for costs in rounds]
        yield (
            f"{_named(several)}: {_spread(times)} times as long as {_named(tables[0])}, "
            f"{_spread(work)} times the CPU time, {len(rounds)} rounds"
        )


def _named(several: int) -> str:
    return f"{several} of a template" if several else "one table"


def _spread(shares: Sequence[float]) -> str:
    return f"{median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"


def _cost(folder: Path, several: int, plan: Plan) -> Cost:
    store, writer = _opened(folder, several)
    random = np.random.default_rng(7)
    first = 0
    while first < plan.held:
        rows = min(10_000, plan.held - first)
        _commit(store, writer, _batch(range(first, first + rows), first, several, random))
        first += rows
    documents = random.permutation(2 * plan.held + plan.rows)
    times: list[float] = []
    began = time.process_time()
    for number in range(plan.commits):
        taken = np.take(documents, range(number * plan.rows, (number + 1) * plan.rows), mode="wrap")
        batch = _batch(sorted({int(one) for one in taken}), first, several, random)
        first = batch.end
        started = time.perf_counter()
        _commit(store, writer, batch)
        times.append(1000 * (time.perf_counter() - started))
    return Cost(median(times), 1000 * (time.process_time() - began) / plan.commits)


def _opened(
    folder: Path, several: int
) -> tuple[TableStore | RoutedStore, TableWriter | RoutedWriter]:
    if several:
        routed = RoutedStore(
            str(folder), "t_{/x}", RoutedSchema(DIMENSION, {}, "m"), "m", "f", 2 * several
        )
        routed.ensure()
        return routed, RoutedWriter(routed, UPKEEP, 1)
    store = TableStore(str(folder), "t", TableSchema(DIMENSION, {}, "m"), "m", "f")
    store.ensure()
    return store, TableWriter(store, UPKEEP, 1)


def _commit(
    store: TableStore | RoutedStore, writer: TableWriter | RoutedWriter, batch: OutcomeBatch
) -> None:
    writer.commit(store.schema.rows(table_rows([batch])), {LANE.key: batch.end})
    writer.keep_up()


def _batch(
    documents: Sequence[int], first: int, several: int, random: np.random.Generator
) -> OutcomeBatch:
    """A record for each document, at the offsets from one on."""
    size = len(documents)
    vectors = random.standard_normal((size, DIMENSION), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    text = "the quick brown fox jumps over the lazy dog and comes back to bed"
    names = [f"t_{document % several}" for document in documents] if several else []
    return OutcomeBatch(
        LANE,
        start=first,
        end=first + size,
        embedded_at=first,
        offsets=range(first, first + size),
        timestamps=[first] * size,
        kinds=[Kind.UPSERT] * size,
        ids=[f"document-{document}" for document in documents],
        event_times=[first] * size,
        texts=[text] * size,
        metadata=Metadata(["{}"] * size, ["{}"] * size, {TABLE: names} if several else {}),
        encoded=[
            Encoded(one[None], ((0, len(text)),), (15,), 15, truncated=False) for one in vectors
        ],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tenants", description=__doc__)
    parser.add_argument("--tables", default="0,1,10,100", help="how many; 0 is no template")
    parser.add_argument("--rows", type=int, default=500, help="of a commit")
    parser.add_argument("--commits", type=int, default=30, help="that are timed")
    parser.add_argument("--held", type=int, default=50_000, help="documents there before")
    parser.add_argument("--rounds", type=int, default=3, help="of all numbers")
    given = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    plan = Plan(given.rows, given.commits, given.held, given.rounds)
    try:
        tables = _numbers(given.tables)
        for line in told(tables, measure(tables, plan, print)):
            print(line)
    except HeadraceError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _numbers(text: str) -> list[int]:
    try:
        return [int(one) for one in text.split(",")]
    except ValueError:
        raise UsageError(f"--tables: {text}: must be numbers with commas between") from None


if __name__ == "__main__":
    sys.exit(main())
