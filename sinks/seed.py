"""A new table seeded with another one's documents: the rows of one version, embedded anew.

Rows and how many of them have been taken are one commit, so a seeding that was ended at any moment
goes on behind the last one. The progress of that version comes with the last commit: the table is
then what replaying the source up to there would have made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from operators.clock import wall_ms
from operators.encoding import Prefixed
from operators.prefix import prefixes_of
from operators.records import Kind, Lane, Metadata, OutcomeBatch
from sinks.errors import SinkError
from sinks.rows import table_rows
from sinks.store import LANCE_ERRORS, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from operators.encoding import Encoded, Input
    from sinks.fence import Fence
    from sinks.schema import TableSchema
    from sinks.store import TableStore

__all__ = ["Seeding", "Snapshot", "release", "snapshot"]

SEED_BYTES: Final = 16 << 20
"""The most bytes of texts of one commit."""

READ_ROWS: Final = 64
"""Rows that are read at a time: of the largest texts 64 have some 60 MB."""

_READ: Final = ("id", "text", "metadata", "event_time", "source_partition", "source_offset")


class Writer(Protocol):
    """Where rows are committed; see `sinks.writer.TableWriter`."""

    fence: Fence

    def commit(
        self, rows: pa.Table, progress: Mapping[str, int], *, seeded: int | None = None
    ) -> None:
        """Merge rows, progress and the count in one commit."""

    def keep_up(self) -> None:
        """Do what upkeep is due."""


@dataclass(frozen=True)
class Snapshot:
    """A version of a table that stays until it is released.

    Attributes:
        dataset: The version.
        fence: Its fence row.
    """

    dataset: lance.LanceDataset
    fence: Fence

    @classmethod
    def of(cls, store: TableStore, version: int) -> Snapshot:
        """That version of a table.

        Raises:
            SinkError: It is gone.
        """
        try:
            dataset = lance.dataset(store.path, version=version)
        except LANCE_ERRORS as error:
            raise SinkError(
                f"table.name: {store.name}: can't open its version {version}: {one_line(error)}; "
                "begin anew: headrace migrate --abandon"
            ) from error
        return cls(dataset, store.fence(dataset))

    def __len__(self) -> int:
        rows: int = self.dataset.count_rows()
        return rows


def snapshot(store: TableStore, tag: str) -> int:
    """Keep the newest version of a table, under a tag, until that is released.

    Returns:
        The version.

    Raises:
        SinkError: It can't be kept.
    """
    dataset = store.open()
    with store.writing():
        tags = dataset.tags
        if tag in tags.list():
            tags.update(tag, dataset.version)
        else:
            tags.create(tag, dataset.version)
    version: int = dataset.version
    return version


def release(store: TableStore, tag: str) -> None:
    """Let go of a version that was kept; nothing where none is, or no table.

    Raises:
        SinkError: The table can't be written.
    """
    if store.exists():
        dataset = store.open()
        with store.writing():
            if tag in dataset.tags.list():
                dataset.tags.delete(tag)


class Seeding:
    """Takes the documents of a snapshot over into a table.

    Args:
        snapshot: Their rows.
        writer: The table's.
        schema: The table's.
        topic: The topic of the documents, where the rows don't say.
        encode: The model of the table: text in, vectors out.
        rows: The most rows of one commit.
        prefix: The metadata field that is put before each chunk; empty for none.

    Attributes:
        total: How many rows there are to take.
        left_out: The documents for which the model gave vectors that are not finite.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        writer: Writer,
        schema: TableSchema,
        topic: str,
        encode: Callable[[Sequence[Input]], Sequence[Encoded]],
        rows: int,
        prefix: str = "",
    ) -> None:
        self.total = len(snapshot)
        self.left_out: list[str] = []
        self._snapshot = snapshot
        self._writer = writer
        self._schema = schema
        self._topic = topic
        self._encode = encode
        self._rows = rows
        self._prefix = prefix

    def run(self) -> Iterator[int]:
        """Take what has not been taken before; gives how many rows have been, after each commit.

        Raises:
            SinkError: A table can't be read or written, or another writer has taken this one over.
        """
        done = self._writer.fence.seeded
        if done is None:
            return
        yield done
        for rows in self._chunks(done):
            done += len(rows)
            batches = self._batches(_documents(rows))
            made = self._schema.rows(table_rows(batches)) if batches else self._nothing
            self._writer.commit(made, {}, seeded=done)
            self._writer.keep_up()
            yield done
        # Now, and not before, the table is one that a flow can go on with.
        self._writer.commit(self._nothing, self._snapshot.fence.progress)

    def _chunks(self, start: int) -> Iterator[pa.Table]:
        """The snapshot's rows from one on, in its order, a commit's at a time."""
        held: list[pa.RecordBatch] = []
        for batch in self._read(start):
            held.append(batch)
            size = sum(pc.sum(pc.binary_length(b.column("text"))).as_py() or 0 for b in held)
            if sum(b.num_rows for b in held) >= self._rows or size >= SEED_BYTES:
                yield pa.Table.from_batches(held)
                held = []
        if held:
            yield pa.Table.from_batches(held)

    def _read(self, start: int) -> Iterator[pa.RecordBatch]:
        topic = ["source_topic"] if self._schema.several_topics else []
        columns = [*_READ, *self._schema.columns, *topic, "deleted", "chunk"]
        scanner = self._snapshot.dataset.scanner(
            columns=columns,
            offset=start,
            limit=self.total - start,
            batch_size=min(READ_ROWS, self._rows),
            batch_readahead=1,
            fragment_readahead=1,
        )
        yield from scanner.to_batches()

    def _batches(self, rows: pa.Table) -> list[OutcomeBatch]:
        """Documents as the outcomes of their records, a batch for each lane."""
        held = rows.to_pylist()
        alive = [row for row in held if not row["deleted"]]
        made = self._encode(self._inputs(alive)) if alive else []
        vectors = {row["id"]: one for row, one in zip(alive, made, strict=True)}
        unfit = {name for name, one in vectors.items() if not np.isfinite(one.vectors).all()}
        self.left_out += sorted(unfit)
        lanes: dict[Lane, list[dict[str, Any]]] = {}
        for row in held:
            if row["id"] not in unfit:
                lane = Lane(row.get("source_topic", self._topic), row["source_partition"])
                lanes.setdefault(lane, []).append(row)
        return [self._batch(lane, own, vectors) for lane, own in lanes.items()]

    def _inputs(self, rows: Sequence[Mapping[str, Any]]) -> Sequence[Input]:
        """What is encoded of documents."""
        texts = [row["text"] for row in rows]
        if not self._prefix:
            return texts
        typed = {name: [row[name] for row in rows] for name in self._schema.columns}
        told = Metadata([row["metadata"] for row in rows], typed=typed)
        return list(map(Prefixed, prefixes_of(told, self._prefix), texts))

    def _batch(
        self, lane: Lane, rows: Sequence[Mapping[str, Any]], vectors: Mapping[str, Encoded]
    ) -> OutcomeBatch:
        rows = sorted(rows, key=lambda row: int(row["source_offset"]))
        offsets = [row["source_offset"] for row in rows]
        times = [row["event_time"] for row in rows]
        told = [row["metadata"] for row in rows]
        typed = {name: [row[name] for row in rows] for name in self._schema.columns}
        return OutcomeBatch(
            lane,
            start=offsets[0],
            end=offsets[-1] + 1,
            embedded_at=wall_ms(),
            offsets=offsets,
            timestamps=times,
            kinds=[Kind.DELETE if row["deleted"] else Kind.UPSERT for row in rows],
            ids=[row["id"] for row in rows],
            event_times=times,
            texts=[row["text"] for row in rows],
            metadata=Metadata(told, told, typed),
            encoded=[vectors.get(row["id"]) for row in rows],
        )

    @property
    def _nothing(self) -> pa.Table:
        return self._schema.arrow.empty_table()


def _documents(rows: pa.Table) -> pa.Table:
    """The rows of documents and of deleted ones; what cuts a text into chunks is the model."""
    # Times as numbers: not all that fit into the column are dates that Python knows.
    times = rows.column("event_time").cast(pa.int64())
    rows = rows.set_column(rows.schema.get_field_index("event_time"), "event_time", times)
    return rows.filter(pc.and_(pc.is_valid(rows.column("id")), pc.equal(rows.column("chunk"), 0)))
