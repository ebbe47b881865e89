"""Rows that several records make together: each column from the record that told it last.

In most tables a write replaces the row of its key, or loses against it. Where records of several
kinds tell of the same thing, such as a product's title and its stock, each is a write of some
columns only, and the table's one writer joins them with what the row holds. What comes of it does
not depend on the order in which the kinds meet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Join", "joined"]


@dataclass(frozen=True)
class Join:
    """How the rows of one key become one row.

    The row with the latest `event_time` of those that have a text gives all columns but these; of
    equal times that of the later record, by partition and offset.

    Attributes:
        parts: Columns that are told apart from the others, by the column with the time of telling:
            the latest value that is not null wins, of equal times the one written last.
        sums: Columns of binary logarithms, whose numbers are added up.
    """

    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sums: tuple[str, ...] = ()

    @property
    def lasting(self) -> str:
        """The condition, in Lance's SQL, that a row without a text has nothing else to tell."""
        return " AND ".join([f"{column} IS NULL" for column in (*self.parts, *self.sums)])


def joined(held: pa.Table, rows: pa.Table, join: Join) -> pa.Table:
    """One row for each key.

    Args:
        held: The rows that the table has of these keys.
        rows: Rows to write, in the order of writing, of the same schema.
        join: The rule.
    """
    merged = pa.concat_tables([held, rows]).combine_chunks()
    if not len(merged):
        return merged
    keys = _Keys(merged)
    whole = keys.latest(
        _times(merged, "event_time"),
        _told(merged, "text"),
        _times(merged, "source_partition"),
        _times(merged, "source_offset"),
    )
    base = np.where(whole >= 0, whole, keys.last())
    result = merged.take(pa.array(base))
    changed: dict[str, Any] = {"deleted": pa.array(whole < 0)}
    for time, columns in join.parts.items():
        told, times = _told(merged, time), _times(merged, time)
        changed[time] = _taken(merged, time, keys.latest(times, told))
        for name in columns:
            latest = keys.latest(times, told & _told(merged, name))
            changed[name] = _taken(merged, name, latest)
    for name in join.sums:
        changed[name] = keys.total(merged.column(name))
    for name, column in changed.items():
        result = result.set_column(result.schema.get_field_index(name), result.field(name), column)
    return result


class _Keys:
    """The rows of a table by their key; results have an entry for each key."""

    def __init__(self, table: pa.Table) -> None:
        keys = pc.dictionary_encode(table.column("key").cast(pa.binary())).combine_chunks()
        groups = (keys.chunk(0) if isinstance(keys, pa.ChunkedArray) else keys).indices
        self._groups: NDArray[np.int32] = groups.to_numpy()
        self._order = np.arange(len(table))
        self._count = int(self._groups.max()) + 1

    def latest(
        self,
        times: NDArray[np.int64],
        candidates: NDArray[np.bool_],
        *ties: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """The candidate of the latest time; -1 where there is none.

        Of equal ones that with the highest of `ties`, and of equal ones again the last.
        """
        rows = np.flatnonzero(candidates)
        order = np.lexsort((rows, *(tie[rows] for tie in reversed(ties)), times[rows]))
        rows = rows[order]
        found = np.full(self._count, -1, np.int64)
        # Of several assignments to one place NumPy keeps the last.
        found[self._groups[rows]] = rows
        return found

    def last(self) -> NDArray[np.int64]:
        """The row written last."""
        found = np.empty(self._count, np.int64)
        found[self._groups] = self._order
        return found

    def total(self, column: pa.ChunkedArray) -> pa.Array:
        """The logarithm of the sum of the numbers whose logarithms a column has."""
        values = column.fill_null(-np.inf).to_numpy()
        sums = np.full(self._count, -np.inf)
        np.logaddexp2.at(sums, self._groups, values)
        return pa.array(sums, mask=np.isneginf(sums))


def _told(table: pa.Table, name: str) -> NDArray[np.bool_]:
    return np.asarray(table.column(name).is_valid())


def _times(table: pa.Table, name: str) -> NDArray[np.int64]:
    return np.asarray(table.column(name).cast(pa.int64()).fill_null(0))


def _taken(table: pa.Table, name: str, rows: NDArray[np.int64]) -> pa.ChunkedArray:
    return table.column(name).take(pa.array(rows, mask=rows < 0))
