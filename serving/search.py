"""The route that searches the table."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Final, Protocol

import numpy as np
from fastapi import APIRouter, Body
from numpy.typing import NDArray

from flows.access import ModelShape
from operators.records import Lane
from serving.guard import guarded
from serving.models import Item, Items, Position, SearchBody
from serving.openapi import problems
from serving.problems import ProblemError
from serving.vectors import QueryVectors
from serving.waiting import ProgressWatch
from sinks.search import Found, Query, TableReader, check_model, find

__all__ = ["READ", "Model", "ModelCheck", "Search", "Searching", "search_router"]

READ: Final = "read"
MODEL_CHECKED_S: Final = 1.0
"""For how long it is taken for granted that the table has vectors of this model."""

_REFUSED: Final = (401, 403, 413, 415, 422, 429, 503, 504)


class Model(Protocol):
    """What of the encoder is needed here."""

    name: str
    fingerprint: str
    dimension: int

    def encode_queries(self, texts: list[str]) -> NDArray[np.float32]:
        """Float32 [texts, dimension]."""
        ...


class Searching(Protocol):
    """What the route asks."""

    async def items(self, asked: SearchBody) -> list[Found]:
        """What a search finds, best first."""
        ...


class ModelCheck:
    """Refuses a table that holds another model's vectors, also one that was put in its place.

    Args:
        reader: The table.
        model: The model that queries are embedded with.
    """

    def __init__(self, reader: TableReader, model: ModelShape) -> None:
        self._reader = reader
        self._model = model
        self._checked = -MODEL_CHECKED_S

    def __call__(self) -> None:
        """Look, unless it was done just before.

        Raises:
            SinkError: It does, or it can't be read.
        """
        now = time.monotonic()
        if now - self._checked >= MODEL_CHECKED_S:
            fence, name = self._reader.fence(), self._reader.store.name
            check_model(fence, name, self._model.name, self._model.fingerprint)
            self._checked = now


class Search:
    """Searches one table for one worker's requests.

    Args:
        reader: The table.
        model: Embeds queries; the table's own.
        vectors: Its vectors, shared and remembered.
        columns: The metadata fields that the table keeps as columns.
        topics: The topics that the table is made from.
        after_timeout_s: Seconds that a search waits for a record.
    """

    def __init__(
        self,
        reader: TableReader,
        model: Model,
        vectors: QueryVectors,
        columns: Mapping[str, str],
        topics: tuple[str, ...],
        after_timeout_s: float,
    ) -> None:
        self.check_model = ModelCheck(reader, model)
        self._reader = reader
        self._vectors = vectors
        self._columns = columns
        self._topics = topics
        self._after_timeout_s = after_timeout_s
        self._watch = ProgressWatch(lambda: reader.fence().progress)

    async def items(self, asked: SearchBody) -> list[Found]:
        """What a search finds, best first.

        Raises:
            ProblemError: The table does not hold the record in `after` in time (504), or never
                will (422).
            HeadraceError: The condition is wrong, or the table can't be searched.
        """
        if asked.after is not None:
            await self._await(asked.after)
        vector = None
        if asked.mode != "text":
            vector = await self._vectors.of(asked.query)
        query = Query(asked.k, asked.offset, asked.mode, asked.query, vector, asked.filter)
        return await asyncio.to_thread(self._find, query)

    def _find(self, query: Query) -> list[Found]:
        self.check_model()
        return find(self._reader.latest(), query, self._columns)

    async def _await(self, after: Position) -> None:
        if after.topic not in self._topics:
            told = ", ".join(self._topics)
            detail = f"after.topic: {after.topic}: the table is made from {told}"
            raise ProblemError(422, "bad_after", detail)
        lane = Lane(after.topic, after.partition)
        if not await self._watch.reached(lane.key, after.offset, self._after_timeout_s):
            detail = f"after: {lane}/{after.offset}: the table has not come so far"
            raise ProblemError(504, "not_yet", detail, {"Retry-After": "1"})


def search_router(search: Searching) -> APIRouter:
    """The route that searches."""
    router = guarded(READ, tags=["search"], responses=problems(*_REFUSED))

    @router.post("/v1/search", summary="Find documents")
    async def post_search(body: Annotated[SearchBody, Body()]) -> Items:
        """Finds the documents nearest to some words: by meaning, by the words, or by both."""
        began = time.perf_counter()
        found = await search.items(body)
        items = [Item.model_validate(asdict(item)) for item in found]
        return Items(items=items, took_ms=round((time.perf_counter() - began) * 1000, 3))

    return router
