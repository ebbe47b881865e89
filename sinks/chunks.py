"""Documents of several rows: which rows a winning write makes, and which it takes away."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pyarrow as pa

from sinks.schema import one_of, stamps

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import lance

    from sinks.rows import Stamp
    from sinks.schema import TableSchema

__all__ = ["has_chunks", "settled"]


def has_chunks(dataset: lance.LanceDataset) -> bool:
    """Whether a document of the table has further rows."""
    return bool(dataset.count_rows(filter="chunk > 0 AND NOT deleted"))


def settled(dataset: lance.LanceDataset, schema: TableSchema, rows: pa.Table) -> pa.Table:
    """Of some documents' rows those that win, and tombstones for chunks that they no longer have.

    The table's guard judges each row by itself, so a write that loses as a whole is left out
    here: its further chunks would meet no row to lose against. The table's one writer asks, so
    nothing changes between this look and its commit.

    Args:
        dataset: The table as it stands.
        schema: Its schema.
        rows: All chunks of each document, of that schema.
    """
    writes = _writes(schema, rows)
    held = _held(dataset, schema, {identity for identity, _, _ in writes})
    lost: set[str] = set()
    heads: list[int] = []
    stale: list[int] = []
    counts = Counter(identity for identity, _, _ in writes)
    for index, (identity, chunk, stamp) in enumerate(writes):
        before, further = held.get(identity, (None, ()))
        if before is not None and not schema.replaces and not stamp.beats(before):
            lost.add(identity)
        elif not chunk:
            gone = [number for number in further if number >= counts[identity]]
            heads += [index] * len(gone)
            stale += gone
    kept = [index for index, (identity, _, _) in enumerate(writes) if identity not in lost]
    return pa.concat_tables([_take(rows, kept), schema.tombstones(_take(rows, heads), stale)])


def _writes(schema: TableSchema, rows: pa.Table) -> list[tuple[str, int, Stamp]]:
    """Of each row its document, its chunk and its write."""
    found = rows.select(_columns(schema))
    ids, chunks = found.column("id").to_pylist(), found.column("chunk").to_pylist()
    return list(zip(ids, chunks, stamps(found), strict=True))


def _take(rows: pa.Table, indices: Sequence[int]) -> pa.Table:
    return rows.take(pa.array(indices, pa.int64()))


def _columns(schema: TableSchema) -> list[str]:
    return ["id", "chunk", "deleted", *schema.stamp_columns]


def _held(
    dataset: lance.LanceDataset, schema: TableSchema, ids: Collection[str]
) -> dict[str, tuple[Stamp | None, list[int]]]:
    """For each document its first row's write, and the numbers of its further rows."""
    if not ids:
        return {}
    found = dataset.to_table(columns=_columns(schema), filter=one_of(ids))
    firsts: dict[str, Stamp | None] = {}
    further: dict[str, list[int]] = {}
    deleted = found.column("deleted").to_pylist()
    for (identity, chunk, stamp), gone in zip(_writes(schema, found), deleted, strict=True):
        if not chunk:
            firsts[identity] = stamp
        elif not gone:
            further.setdefault(identity, []).append(chunk)
    return {i: (firsts.get(i), further.get(i, [])) for i in firsts.keys() | further.keys()}
