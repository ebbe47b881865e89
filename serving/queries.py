"""What a search asks of a table, once that holds the record which the search waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operators.records import Lane
from serving.problems import ProblemError
from serving.waiting import ProgressWatch
from sinks.search import Query

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from serving.models import Position, SearchBody
    from serving.vectors import QueryVectors

__all__ = ["Queries"]


class Queries:
    """Makes the queries of one worker's requests.

    Args:
        progress: The next offset of each lane in the table, by the lane's key; may block.
        vectors: The model's vectors, shared and remembered.
        topics: The topics that the table is made from.
        after_timeout_s: Seconds that a search waits for a record.
    """

    def __init__(
        self,
        progress: Callable[[], Mapping[str, int]],
        vectors: QueryVectors,
        topics: Collection[str],
        after_timeout_s: float,
    ) -> None:
        self._vectors = vectors
        self._topics = topics
        self._after_timeout_s = after_timeout_s
        self._watch = ProgressWatch(progress)

    async def query(self, asked: SearchBody) -> Query:
        """The query of a search, once the table holds the record in `after`.

        Raises:
            ProblemError: It does not in time (504), or never will (422).
            HeadraceError: The table can't be read.
        """
        if asked.after is not None:
            await self._await(asked.after)
        vector = None
        if asked.mode != "text":
            vector = await self._vectors.of(asked.query)
        return Query(asked.k, asked.offset, asked.mode, asked.query, vector, asked.filter)

    def close(self) -> None:
        """Let go of the model."""
        self._vectors.close()

    async def _await(self, after: Position) -> None:
        if after.topic not in self._topics:
            told = ", ".join(self._topics)
            detail = f"after.topic: {after.topic}: the table is made from {told}"
            raise ProblemError(422, "bad_after", detail)
        lane = Lane(after.topic, after.partition)
        if not await self._watch.reached(lane.key, after.offset, self._after_timeout_s):
            detail = f"after: {lane}/{after.offset}: the table has not come so far"
            raise ProblemError(504, "not_yet", detail, {"Retry-After": "1"})
