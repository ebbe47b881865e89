"""What more cores give, and what saturates first: calculated, and simulated to check that.

    python -m benchmarks.scaling [--measure] [--docs N]

Prints documents a second for 1 to 1,000 workers, the ceiling of each part, and how evenly lanes
spread over workers. The costs are `MEASURED`, or with `--measure` this machine's, which
`benchmarks.calibrate` takes from a real broker and real flows of one and of two processes; their
drains then stand beside the simulated ones. `docs/scaling.md` explains both.

The simulation lets batches, not documents, take turns: a worker embeds a batch, a lane's
committer writes what has come in a transaction, the table's writer merges what has come in a
commit, and a worker stops reading while its records in flight use up its budget. The calculation
knows nothing of turns, queues and budgets, so where both agree the first is right to leave them
out.
"""

from __future__ import annotations

import argparse
import heapq
import math
import sys
from collections import deque
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Final

from sinks.topic import TRANSACTION_ROWS, TRANSACTIONS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "MEASURED",
    "Costs",
    "Deployment",
    "balance",
    "ceilings",
    "growth",
    "limit",
    "main",
    "primaries",
    "shares",
    "simulate",
    "tables_for",
]


_BATCH_RECORDS = 256
"""What a lane reads at a time, about: a step of the model under a backlog."""


COMMIT_ROWS: Final = 5000
"""The rows of a commit near saturation: half of `sinks.table.COMMIT_ROWS`, which is reached only
where the budgets of several workers wait for one."""


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU-seconds of each part.

    Attributes:
        document: Of a worker, for a document: reading, decoding, embedding, encoding.
        exchange: Of workers, for a document whose row passes from one process to another.
        transaction: Of the broker, for a transaction.
        produced: Of the broker, for a document: fetched once, produced once.
        commit: Of the table's writer, for a commit.
        row: Of the table's writer, for a row.
        rest: How many times as long as a commit took the writer rests after it.
        rest_s: The longest that it rests.
    """

    document: float
    exchange: float
    transaction: float
    produced: float
    commit: float
    row: float
    rest: float = 3.0
    rest_s: float = 0.5

    def rested(self, took: float) -> float:
        """How long the table's writer rests after a commit."""
        return min(self.rest * took, self.rest_s)


@dataclass(frozen=True, slots=True)
class Deployment:
    """What runs.

    Attributes:
        workers: One process and one core each.
        partitions: Of the source, all lanes of one flow.
        broker_cores: Of all brokers together.
        tables: How many flows of one table each share the load and the workers.
        hot_share: The share of all documents that are one key's.
        machine_cores: Where everything shares one machine, its cores.
        max_in_flight: `source.max_in_flight`.
    """

    workers: int
    partitions: int
    broker_cores: int = 24
    tables: int = 1
    hot_share: float = 0.0
    machine_cores: int | None = None
    max_in_flight: int = 8192


def primaries(partitions: int, workers: int) -> list[int]:
    """The worker of each lane, as Bytewax chooses it: the one with the fewest lanes so far."""
    return [lane % workers for lane in range(partitions)]


def shares(deployment: Deployment) -> list[float]:
    """The share of all documents in each lane: even, but for a hot key's lane."""
    even = (1 - deployment.hot_share) / deployment.partitions
    return [even + deployment.hot_share, *[even] * (deployment.partitions - 1)]


def worker_s(costs: Costs, deployment: Deployment) -> float:
    """A worker's CPU-seconds for a document; the table's part may lie with any other worker."""
    return costs.document + costs.exchange * (1 - 1 / deployment.workers)


def ceilings(costs: Costs, deployment: Deployment) -> dict[str, float]:
    """The documents a second at which each part has no time left.

    Transactions and commits are as large as they may be then: what has to wait shares the next.
    """
    load = [0.0] * deployment.workers
    for share, worker in zip(
        shares(deployment), primaries(deployment.partitions, deployment.workers), strict=True
    ):
        load[worker] += share
    each = worker_s(costs, deployment)
    produced = costs.produced + costs.transaction / TRANSACTION_ROWS
    commit = costs.commit + costs.row * COMMIT_ROWS
    commit += costs.rested(commit)
    found = {
        "workers": deployment.workers / each,
        "fullest worker": 1 / (each * max(load)),
        "broker": (deployment.machine_cores or deployment.broker_cores) / produced,
        "table": deployment.tables * COMMIT_ROWS / commit,
    }
    if deployment.machine_cores:
        row = costs.row + costs.commit / COMMIT_ROWS
        found["machine"] = deployment.machine_cores / (each + produced + row)
    return found


def limit(costs: Costs, deployment: Deployment) -> tuple[str, float]:
    """What saturates first, and at how many documents a second."""
    return min(ceilings(costs, deployment).items(), key=lambda item: item[1])


class _Pool:
    """Some cores, and who waits for one."""

    def __init__(self, clock: _Clock, cores: int) -> None:
        self._clock = clock
        self._free = cores
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()

    def run(self, seconds: float, done: Callable[[], None]) -> None:
        """Take a core for so long as soon as one is free."""
        self._waiting.append((seconds, done))
        self._start()

    def _start(self) -> None:
        while self._free and self._waiting:
            seconds, done = self._waiting.popleft()
            self._free -= 1
            self._clock.after(seconds, lambda done=done: self._end(done))  # type: ignore[misc]

    def _end(self, done: Callable[[], None]) -> None:
        self._free += 1
        done()
        self._start()


class _Clock:
    """What happens next."""

    def __init__(self) -> None:
        self.now = 0.0
        self.settled = 0.0  # When something was committed last.
        self._order = count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Let something happen in so many seconds."""
        heapq.heappush(self._events, (self.now + seconds, next(self._order), what))

    def run(self) -> None:
        """Until nothing is left to happen."""
        while self._events:
            self.now, _, what = heapq.heappop(self._events)
            what()


@dataclass(eq=False)
class _Lane:
    """A lane: what is left in the topic, and what is between source and sinks."""

    left: int
    worker: _Worker
    table: _Committer
    topic: _Committer
    topic_done: int = 0
    table_done: int = 0
    read: int = 0

    @property
    def in_flight(self) -> int:
        """Records read and not yet in both sinks."""
        return self.read - min(self.topic_done, self.table_done)


@dataclass(eq=False)
class _Worker:
    """Reads its lanes in turn, a batch at a time."""

    core: _Pool
    document_s: float
    max_in_flight: int
    lanes: list[_Lane] = field(default_factory=list)
    busy: bool = False
    turn: int = 0

    def wake(self) -> None:
        """Read on, if there is something to read and room for it."""
        if self.busy:
            return
        share = max(1, self.max_in_flight // len(self.lanes))
        for step in range(len(self.lanes)):
            lane = self.lanes[(self.turn + step) % len(self.lanes)]
            size = min(_BATCH_RECORDS, lane.left, share - lane.in_flight)
            if size > 0:
                self.turn = (self.turn + step + 1) % len(self.lanes)
                self._embed(lane, size)
                return

    def _embed(self, lane: _Lane, size: int) -> None:
        self.busy = True
        lane.left -= size
        lane.read += size

        def done() -> None:
            self.busy = False
            lane.topic.put(lane, size)
            lane.table.put(lane, size)
            self.wake()

        self.core.run(size * self.document_s, done)


@dataclass(eq=False)
class _Committer:
    """Commits what has come, up to a number of rows at a time, and then rests."""

    clock: _Clock
    core: _Pool
    rows: int
    commit_s: float
    row_s: float
    rest: Callable[[float], float]
    settle: Callable[[_Lane, int], None]
    queue: deque[tuple[_Lane, int]] = field(default_factory=deque)
    busy: bool = False

    def put(self, lane: _Lane, size: int) -> None:
        """Queue records of a lane."""
        self.queue.append((lane, size))
        self._commit()

    def _commit(self) -> None:
        if self.busy or not self.queue:
            return
        self.busy = True
        taken: list[tuple[_Lane, int]] = []
        rows = 0
        while self.queue and rows + self.queue[0][1] <= self.rows:
            taken.append(self.queue.popleft())
            rows += taken[-1][1]
        seconds = self.commit_s + self.row_s * rows
        began = self.clock.now

        def done() -> None:
            self.clock.settled = self.clock.now
            for lane, size in taken:
                self.settle(lane, size)
            for worker in dict.fromkeys(lane.worker for lane, _ in taken):
                worker.wake()
            self.clock.after(max(0.0, self.rest(self.clock.now - began)), rested)

        def rested() -> None:
            self.busy = False
            self._commit()

        self.core.run(seconds, done)


def simulate(costs: Costs, deployment: Deployment, docs: int) -> float:
    """Documents a second of a drain of so many, until both sinks have all of them."""
    clock = _Clock()
    shared = _Pool(clock, deployment.machine_cores) if deployment.machine_cores else None
    broker = shared or _Pool(clock, deployment.broker_cores)
    each = worker_s(costs, deployment)
    workers = [
        _Worker(shared or _Pool(clock, 1), each, deployment.max_in_flight)
        for _ in range(deployment.workers)
    ]
    tables = [_table(clock, shared or _Pool(clock, 1), costs) for _ in range(deployment.tables)]
    places = primaries(deployment.partitions, deployment.workers)
    own = max(places.count(0), 1)
    for number, (share, place) in enumerate(zip(shares(deployment), places, strict=True)):
        lane = _Lane(
            round(docs * share),
            workers[place],
            tables[number * deployment.tables // deployment.partitions],
            _topic(clock, broker, costs, own / TRANSACTIONS_PER_S),
        )
        workers[place].lanes.append(lane)
    total = sum(lane.left for worker in workers for lane in worker.lanes)
    for worker in workers:
        worker.wake()
    clock.run()
    return total / clock.settled


def _table(clock: _Clock, core: _Pool, costs: Costs) -> _Committer:
    def settle(lane: _Lane, size: int) -> None:
        lane.table_done += size

    return _Committer(clock, core, COMMIT_ROWS, costs.commit, costs.row, costs.rested, settle)


def _topic(clock: _Clock, broker: _Pool, costs: Costs, pause_s: float) -> _Committer:
    def settle(lane: _Lane, size: int) -> None:
        lane.topic_done += size

    def rest(took: float) -> float:
        return pause_s - took

    return _Committer(
        clock, broker, TRANSACTION_ROWS, costs.transaction, costs.produced, rest, settle
    )


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
        from benchmarks.calibrate import calibrate  # noqa: PLC0415 - starts a broker's clients

        costs = calibrate(print)
    show(costs, given.docs, print)
    return 0


if __name__ == "__main__":
    sys.exit(main())
