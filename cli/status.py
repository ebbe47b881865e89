"""`headrace status`: how fresh the outputs are."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pyarrow.compute as pc

from cli.broker import connect, records
from cli.output import ago, emit, say, show_table
from flows.access import current, embedding_topics, reading_store, routed_tables
from flows.frame import lanes_of
from headrace.errors import UsageError
from sinks.errors import SinkError
from sinks.store import shared_caches
from sources.lane import LaneReader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import lance

    from clients.kafka import KafkaConfig
    from flows.settings import Settings
    from operators.records import Lane
    from sinks.fence import Fence
    from sinks.routed import RoutedStore
    from sinks.store import TableStore

__all__ = ["Status", "show", "status"]

OPTIONAL: Final = ("snapshot", "pipeline", "tables", "max_tables")
"""What JSON has only where it is there."""

SHOWN_TABLES: Final = 20
"""How many of several tables are shown to people, the largest first."""

AT_ONCE: Final = 8
"""How many of several tables are read at a time: Lance works without the interpreter's lock."""


@dataclass(frozen=True)
class Partition:
    """Where a source partition stands.

    Attributes:
        topic: Its topic.
        partition: Its number.
        low: The first offset that it still has.
        high: The offset that it gives next.
        committed: The topic's progress, a next offset: the group's committed offset.
        table: The table's progress, from its fence row.
        lag: Offsets from `committed` to `high`. Control records of transactions count too.
        oldest_waiting_s: Age of the oldest record that is not committed.
    """

    topic: str
    partition: int
    low: int
    high: int
    committed: int | None
    table: int | None
    lag: int
    oldest_waiting_s: float | None


@dataclass(frozen=True)
class Table:
    """What the table holds, or several together.

    Attributes:
        uri: Where it is.
        name: Its name, or the template of theirs.
        rows: Rows of documents, one for each chunk.
        tombstones: Rows of deleted documents.
        newest: When the newest row was embedded.
        age_s: How long ago that was.
        model: The model of its vectors.
        fingerprint: The model's fingerprint.
    """

    uri: str
    name: str
    rows: int
    tombstones: int
    newest: str | None
    age_s: float | None
    model: str
    fingerprint: str


@dataclass(frozen=True)
class RoutedTable:
    """What one of several tables holds.

    Attributes:
        name: Its name.
        rows: Rows of documents, one for each chunk; None where the table is not there: it is just
            made, or was deleted.
        tombstones: Rows of deleted documents; None as well.
        newest: When the newest row was embedded.
        age_s: How long ago that was.
    """

    name: str
    rows: int | None = None
    tombstones: int | None = None
    newest: str | None = None
    age_s: float | None = None


@dataclass(frozen=True)
class Snapshot:
    """The newest file of the recovery folder."""

    folder: str
    taken: str
    age_s: float


@dataclass(frozen=True)
class Status:
    """All of it.

    Attributes:
        application_id: The consumer group.
        lag: Of all partitions together.
        partitions: Each of them.
        table: None while there is no table.
        snapshot: None where no recovery folder is named.
        pipeline: Whose it is; None where there are no pipelines.
        tables: Each table by its name, where records name theirs; None where there is one.
        max_tables: How many of them there may be.
    """

    application_id: str
    lag: int
    partitions: list[Partition] = field(default_factory=list)
    table: Table | None = None
    snapshot: Snapshot | None = None
    pipeline: str | None = None
    tables: list[RoutedTable] | None = None
    max_tables: int | None = None


@dataclass(frozen=True)
class _Outputs:
    """What is told of the tables: the progress by lane, their sum, and each where several."""

    progress: Mapping[str, int] = field(default_factory=dict)
    table: Table | None = None
    tables: list[RoutedTable] | None = None


def status(settings: Settings, recovery: Path | None) -> Status:
    """How fresh the outputs are, read from where their progress is kept.

    Args:
        settings: They name the broker, the topics and the table; after a migration it is the new
            table's flow that is told of.
        recovery: The recovery folder, if there is one.

    Raises:
        HeadraceError: The broker or a topic is not there, or the recovery folder.
    """
    snapshot = None if recovery is None else _snapshot(recovery)
    settings = current(settings)
    kafka = connect(settings)
    lanes = lanes_of(kafka, embedding_topics(settings))
    routed = settings.table.routed
    outputs = _routed(settings) if routed else _table(settings)
    partitions = [_partition(kafka, lane, outputs.progress.get(lane.key)) for lane in lanes]
    return Status(
        settings.kafka.application_id,
        sum(partition.lag for partition in partitions),
        partitions,
        outputs.table,
        snapshot,
        settings.name or None,
        outputs.tables,
        settings.table.max_tables if routed else None,
    )


def show(found: Sequence[Status], *, as_json: bool) -> None:
    """Print that of each pipeline; as JSON a list of them where there are several."""
    if as_json:
        told = [
            {
                name: value
                for name, value in asdict(one).items()
                if name not in OPTIONAL or value is not None
            }
            for one in found
        ]
        emit(told if len(told) > 1 else told[0])
        return
    for one in found:
        _show(one)


def _show(told: Status) -> None:
    if told.pipeline is not None:
        say(f"pipeline  {told.pipeline}")
    show_table(
        ("partition", "low", "high", "committed", "table", "lag", "oldest waiting"),
        [_row(partition) for partition in told.partitions],
    )
    for name, value in _lines(told).items():
        say(f"{name:<9} {value}")
    if told.tables:
        _show_tables(told.tables)


def _show_tables(tables: Sequence[RoutedTable]) -> None:
    """Print the largest of several tables."""
    largest = sorted(tables, key=lambda one: (-(one.rows or 0), one.name))
    show_table(
        ("table", "rows", "tombstones", "newest row ago"),
        [
            (one.name, one.rows, one.tombstones, None if one.age_s is None else ago(one.age_s))
            for one in largest[:SHOWN_TABLES]
        ],
    )
    if len(largest) > SHOWN_TABLES:
        say(f"and {len(largest) - SHOWN_TABLES:,} more tables, none of them larger: --json has all")


def _row(partition: Partition) -> tuple[object, ...]:
    told = asdict(partition)
    waiting = partition.oldest_waiting_s
    return (
        f"{partition.topic}/{partition.partition}",
        *(told[name] for name in ("low", "high", "committed", "table", "lag")),
        None if waiting is None else ago(waiting),
    )


def _lines(told: Status) -> dict[str, str]:
    lines = {"group": told.application_id, "lag": f"{told.lag:,}"}
    table = told.table
    if table is None:
        lines["table"] = "not there yet; the flow makes it"
    else:
        held = f"{table.rows:,} rows, {table.tombstones:,} tombstones"
        if told.tables is not None:
            held = f"{len(told.tables):,} of {told.max_tables:,} tables, {held}"
        lines["table"] = f"{table.name} in {table.uri}: {held}"
        fresh = "no document yet"
        if table.age_s is not None:
            fresh = f"newest row embedded {ago(table.age_s)} ago, at {table.newest}"
        lines["freshness"] = fresh
        lines["model"] = f"{table.model} ({table.fingerprint})"
    if told.snapshot is not None:
        lines["snapshot"] = f"{ago(told.snapshot.age_s)} ago, in {told.snapshot.folder}"
    return lines


def _partition(kafka: KafkaConfig, lane: Lane, table: int | None) -> Partition:
    reader = LaneReader(kafka, lane)
    try:
        marks = reader.watermarks()
        committed = kafka.committed(reader.consumer, lane.topic, lane.partition)
    finally:
        reader.close()
    start = marks.low if committed is None else max(committed, marks.low)
    lag = max(0, marks.high - start)
    waiting = _waiting_s(kafka, lane, start) if lag else None
    return Partition(
        lane.topic, lane.partition, marks.low, marks.high, committed, table, lag, waiting
    )


def _waiting_s(kafka: KafkaConfig, lane: Lane, start: int) -> float | None:
    """The age of the first record at or above an offset."""
    waiting = records(kafka, lane, start)
    first = next(waiting, None)
    waiting.close()
    return None if first is None else max(0.0, round(time.time() - first.timestamp / 1000, 3))


def _table(settings: Settings) -> _Outputs:
    """What the table holds."""
    store = reading_store(settings)
    if not store.exists():
        return _Outputs()
    dataset = store.open()
    fence = store.fence(dataset)
    return _Outputs(fence.progress, _summed(store, fence, [_held(store, dataset)]))


def _routed(settings: Settings) -> _Outputs:
    """What several tables hold, and their directory says."""
    several = routed_tables(settings)
    directory = several.directory
    if not several.exists():
        return _Outputs(tables=[])
    fence = directory.fence(directory.open())
    caches = shared_caches()
    stores = [several.table(name, caches) for name in sorted(fence.tables or {})]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        tables = list(pool.map(_held_if_there, stores))
    return _Outputs(fence.progress, _summed(several, fence, tables), tables)


def _held_if_there(store: TableStore) -> RoutedTable:
    """What one of several tables holds, whether it is made yet and not deleted meanwhile."""
    try:
        return _held(store, store.open())
    except SinkError:
        if store.is_gone():
            return RoutedTable(store.name)
        raise


def _held(store: TableStore, dataset: lance.LanceDataset) -> RoutedTable:
    with store.reading():
        newest = _newest(dataset)
        return RoutedTable(
            store.name,
            rows=dataset.count_rows(filter="NOT deleted"),
            tombstones=dataset.count_rows(filter="deleted AND id IS NOT NULL"),
            newest=None if newest is None else newest.isoformat(),
            age_s=None if newest is None else _age_s(newest.timestamp()),
        )


def _summed(store: TableStore | RoutedStore, fence: Fence, tables: Sequence[RoutedTable]) -> Table:
    """What tables hold together; all times are UTC, so the latest is the last as text."""
    youngest = max(tables, key=lambda one: one.newest or "", default=RoutedTable(store.name))
    return Table(
        uri=store.uri,
        name=store.name,
        rows=sum(one.rows or 0 for one in tables),
        tombstones=sum(one.tombstones or 0 for one in tables),
        newest=youngest.newest,
        age_s=youngest.age_s,
        model=fence.model,
        fingerprint=fence.fingerprint,
    )


def _newest(dataset: lance.LanceDataset) -> datetime | None:
    """When the newest row but the fence was embedded; read in batches, whatever their number."""
    batches = dataset.scanner(columns=["embedded_at"], filter="id IS NOT NULL").to_batches()
    times: list[Any] = [pc.max(batch.column(0)).as_py() for batch in batches if batch.num_rows]
    return max(times, default=None)


def _snapshot(folder: Path) -> Snapshot:
    files = [path.stat().st_mtime for path in folder.glob("part-*.sqlite3*")]
    if not files:
        raise UsageError(f"--recovery: {folder}: no recovery store is there")
    taken = max(files)
    return Snapshot(str(folder), datetime.fromtimestamp(taken, UTC).isoformat(), _age_s(taken))


def _age_s(moment: float) -> float:
    return max(0.0, round(time.time() - moment, 3))
