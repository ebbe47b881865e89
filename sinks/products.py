"""The table of products searched for a user: what is near to some views, and what is popular."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow.compute as pc

from sinks.schema import one_of
from sinks.search import Query, condition, find
from sinks.store import vectors_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from sinks.search import TableReader

__all__ = ["Products", "Recommended"]

IN_STOCK: Final = "(in_stock IS NULL OR in_stock)"
"""A product of which no stock was ever told is taken to be there."""


POPULAR_S: Final = 1.0
"""For how long what is popular is not looked for again: all products are looked at for it."""

POPULAR_KEPT: Final = 64


@dataclass(frozen=True)
class Recommended:
    """A product for a user.

    Attributes:
        id: Its id.
        score: The higher the better.
        title: Its title.
        because: The viewed product that is nearest to it.
    """

    id: str
    score: float
    title: str
    because: str | None = None


class Products:
    """The newest version of the table of products; safe for several threads.

    Args:
        reader: The table.
        popular_ms: After how long a view counts half for what is popular, in milliseconds.
    """

    def __init__(self, reader: TableReader, popular_ms: float) -> None:
        self._reader = reader
        self._popular_ms = popular_ms
        self._lock = threading.Lock()
        self._popular: dict[tuple[int, str | None], tuple[float, list[Recommended]]] = {}

    def near(
        self, vector: NDArray[np.float32], viewed: Sequence[str], k: int, where: str | None
    ) -> list[Recommended]:
        """The products nearest to a user that are in stock and were not just viewed.

        Args:
            vector: The user's, of unit length.
            viewed: The products that the user viewed, from new to old.
            k: How many.
            where: A condition that they meet, in SQL.

        Raises:
            FilterError: The condition can't be read, or does not fit the columns.
            SinkError: The table can't be searched.
        """
        dataset = self._reader.latest()
        query = Query(k, vector=vector, where=where, within=_unseen(viewed))
        found = find(dataset, query, ["title"])
        ids = [item.id for item in found]
        with self._reader.store.reading():
            vectors = vectors_of(dataset, {*ids, *viewed})
        return [
            Recommended(
                item.id, item.score, str(item.metadata["title"]), _nearest(item.id, viewed, vectors)
            )
            for item in found
        ]

    def popular(self, k: int, where: str | None, now_ms: float) -> list[Recommended]:
        """The products most viewed of late that are in stock.

        Args:
            k: How many.
            where: A condition that they meet, in SQL.
            now_ms: The time, in milliseconds since 1970.

        Raises:
            FilterError: The condition can't be read, or does not fit the columns.
            SinkError: The table can't be searched.
        """
        with self._lock:
            kept = self._popular.get((k, where))
            if kept is not None and time.monotonic() < kept[0]:
                return kept[1]
        found = self._most_viewed(k, where, now_ms)
        with self._lock:
            if len(self._popular) >= POPULAR_KEPT:
                self._popular.clear()
            self._popular[k, where] = time.monotonic() + POPULAR_S, found
        return found

    def _most_viewed(self, k: int, where: str | None, now_ms: float) -> list[Recommended]:
        dataset = self._reader.latest()
        among = condition(dataset, where, f"{IN_STOCK} AND heat IS NOT NULL")
        with self._reader.store.reading():
            rows = dataset.to_table(columns=["id", "title", "heat"], filter=among)
        order = pc.select_k_unstable(
            rows, k, sort_keys=[("heat", "descending"), ("id", "ascending")]
        )
        now = now_ms / self._popular_ms
        return [
            Recommended(row["id"], round(math.exp2(min(row["heat"] - now, 60)), 6), row["title"])
            for row in rows.take(order).to_pylist()
        ]


def _unseen(viewed: Collection[str]) -> str:
    return f"{IN_STOCK} AND NOT ({one_of(viewed)})" if viewed else IN_STOCK


def _nearest(
    identity: str, viewed: Sequence[str], vectors: dict[str, NDArray[np.float32]]
) -> str | None:
    """The viewed product that is nearest to another one."""
    own = vectors.get(identity)
    known = [product for product in viewed if product in vectors]
    if own is None or not known:
        return None
    return max(known, key=lambda product: float(vectors[product] @ own))
