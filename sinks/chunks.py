"""Documents of several rows: which rows a winning write makes, and which it takes away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operators.records import Lane
from sinks.schema import Stamp

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import lance

    from sinks.schema import TableRow, TableSchema

__all__ = ["all_chunks", "has_chunks"]


def has_chunks(dataset: lance.LanceDataset) -> bool:
    """Whether a document of the table has further rows."""
    return bool(dataset.count_rows(filter="chunk > 0 AND NOT deleted"))


def all_chunks(
    dataset: lance.LanceDataset, schema: TableSchema, heads: Sequence[TableRow]
) -> list[TableRow]:
    """The rows of every chunk of some documents, and tombstones for those they no longer have.

    The table's guard judges each row by itself, so a write that loses as a whole is left out
    here: its further chunks would meet no row to lose against. The table's one writer asks, so
    nothing changes between this look and its commit.

    Args:
        dataset: The table as it stands.
        schema: Its schema.
        heads: The documents' first rows.
    """
    held = _held(dataset, schema, [head.id for head in heads])
    rows: list[TableRow] = []
    for head in heads:
        stamp, further = held.get(head.id, (None, ()))
        if stamp is None or head.stamp.beats(stamp):
            stale = [chunk for chunk in further if chunk >= head.chunks]
            rows += [head.with_chunk(chunk) for chunk in (*range(head.chunks), *stale)]
    return rows


def _held(
    dataset: lance.LanceDataset, schema: TableSchema, ids: Collection[str]
) -> dict[str, tuple[Stamp | None, list[int]]]:
    """For each document its first row's write, and the numbers of its further rows."""
    if not ids:
        return {}
    quoted = ", ".join("'" + identity.replace("'", "''") + "'" for identity in ids)
    topic = ["source_topic"] if schema.several_topics else []
    columns = ["id", "chunk", "deleted", "source_partition", "source_offset", "event_time"]
    found = dataset.to_table(columns=columns + topic, filter=f"id IN ({quoted})")
    stamps: dict[str, Stamp | None] = {}
    further: dict[str, list[int]] = {}
    for row in found.to_pylist():
        if not row["chunk"]:
            lane = Lane(row.get("source_topic", ""), row["source_partition"])
            time_ms = round(row["event_time"].timestamp() * 1000)
            stamps[row["id"]] = Stamp(lane, row["source_offset"], time_ms)
        elif not row["deleted"]:
            further.setdefault(row["id"], []).append(row["chunk"])
    return {i: (stamps.get(i), further.get(i, [])) for i in stamps.keys() | further.keys()}
