"""What runs, what each part costs, and so what a flow can do: calculated, and simulated.

The simulation lets batches, not documents, take turns: a worker embeds a batch, a lane's
committer writes what has come in a transaction, the table's writer merges what has come in a
commit, and a worker stops reading while its records in flight use up its budget. The calculation
knows nothing of turns, queues and budgets, so where both agree the first is right to leave them
out.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Final

from sinks.topic import TRANSACTION_ROWS, TRANSACTIONS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Costs",
    "Deployment",
    "ceilings",
    "limit",
    "primaries",
    "shares",
    "simulate",
    "worker_s",
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
