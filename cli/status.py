"""`headrace status`: how fresh the outputs are."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pyarrow.compute as pc

from cli.broker import connect, records
from cli.output import ago, emit, say, show_table
from flows.access import current, embedding_topics, reading_store
from flows.frame import lanes_of
from headrace.errors import UsageError
from sources.lane import LaneReader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import lance

    from clients.kafka import KafkaConfig
    from flows.settings import Settings
    from operators.records import Lane

__all__ = ["Status", "show", "status"]

OPTIONAL: Final = ("snapshot", "pipeline")
"""What JSON has only where it is there."""


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
    """What the table holds.

    Attributes:
        uri: Where it is.
        name: Its name.
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
    """

    application_id: str
    lag: int
    partitions: list[Partition] = field(default_factory=list)
    table: Table | None = None
    snapshot: Snapshot | None = None
    pipeline: str | None = None


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
    progress, table = _table(settings)
    partitions = [_partition(kafka, lane, progress.get(lane.key)) for lane in lanes]
    lag = sum(partition.lag for partition in partitions)
    group, name = settings.kafka.application_id, settings.name or None
    return Status(group, lag, partitions, table, snapshot, name)


def show(found: Sequence[Status], *, as_json: bool) -> None:
    """Print that of each pipeline; as JSON a list of them where there are several."""
    if as_json:
        told = [
            {name: value for name, value in asdict(one).items() if name not in OPTIONAL or value}
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
        lines["table"] = (
            f"{table.name} in {table.uri}: {table.rows:,} rows, {table.tombstones:,} tombstones"
        )
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


def _table(settings: Settings) -> tuple[Mapping[str, int], Table | None]:
    """The table's progress by lane, and what it holds."""
    store = reading_store(settings)
    if not store.exists():
        return {}, None
    dataset = store.open()
    fence = store.fence(dataset)
    newest = _newest(dataset)
    table = Table(
        uri=store.uri,
        name=store.name,
        rows=dataset.count_rows(filter="NOT deleted"),
        tombstones=dataset.count_rows(filter="deleted AND id IS NOT NULL"),
        newest=None if newest is None else newest.isoformat(),
        age_s=None if newest is None else _age_s(newest.timestamp()),
        model=fence.model,
        fingerprint=fence.fingerprint,
    )
    return fence.progress, table


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
