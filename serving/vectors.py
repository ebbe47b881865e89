"""Queries to vectors: the last ones are remembered, and those that come together share a call."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from telemetry.http import HttpMetrics

    Encode = Callable[[Sequence[str]], NDArray[np.float32]]

__all__ = ["QueryVectors"]

MOST_TOGETHER: Final = 32


class QueryVectors:
    """Embeds queries for one event loop, in a thread of its own.

    While the model works on some queries, those that come wait for each other: the next call
    takes all of them. So a lone query never waits, and many need few calls.

    Args:
        encode: Float32 [queries, dimension], of unit length.
        entries: How many queries are remembered.
        metrics: Where it is counted.
    """

    def __init__(self, encode: Encode, entries: int, metrics: HttpMetrics) -> None:
        self._encode = encode
        self._entries = entries
        self._metrics = metrics
        self._held: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._asked: dict[str, asyncio.Future[NDArray[np.float32]]] = {}
        self._waiting: list[str] = []
        self._task: asyncio.Task[None] | None = None
        # The model's session is bound to no thread, but one at a time is what it is fast with.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    async def of(self, query: str) -> NDArray[np.float32]:
        """The vector of a query."""
        held = self._held.get(query)
        if held is not None:
            self._held.move_to_end(query)
            self._metrics.queries.labels("cache").inc()
            return held
        self._metrics.queries.labels("model").inc()
        asked = self._asked.get(query)
        if asked is None:
            asked = self._asked[query] = asyncio.get_running_loop().create_future()
            self._waiting.append(query)
            if self._task is None:
                self._task = asyncio.create_task(self._work())
        # One who goes away must not take the vector from those who wait for the same.
        return await asyncio.shield(asked)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            queries = self._waiting[:MOST_TOGETHER]
            del self._waiting[:MOST_TOGETHER]
            self._metrics.inferences.inc()
            try:
                vectors = await loop.run_in_executor(self._thread, self._encode, queries)
            except Exception as error:  # noqa: BLE001 - told to each who waits
                for query in queries:
                    self._asked.pop(query).set_exception(error)
                continue
            for query, vector in zip(queries, vectors, strict=True):
                self._asked.pop(query).set_result(vector)
                self._remember(query, vector.copy())
        self._task = None

    def _remember(self, query: str, vector: NDArray[np.float32]) -> None:
        if self._entries:
            self._held[query] = vector
            if len(self._held) > self._entries:
                self._held.popitem(last=False)
