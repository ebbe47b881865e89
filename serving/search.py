"""The route that searches the table."""

import asyncio
import time
from collections.abc import Collection
from dataclasses import asdict
from typing import Annotated, Final, Protocol

import numpy as np
from fastapi import APIRouter, Body, Request
from numpy.typing import NDArray

from flows.access import ModelShape
from serving.guard import check_table, guarded
from serving.models import Item, Items, SearchBody
from serving.openapi import problems
from serving.queries import Queries
from sinks.search import Found, Query, TableReader, check_model

__all__ = ["READ", "Model", "ModelCheck", "Search", "Searching", "search_router"]

READ: Final = "read"
MODEL_CHECKED_S: Final = 1.0
"""For how long it is taken for granted that the table has vectors of this model."""

_REFUSED: Final = (401, 403, 404, 413, 415, 422, 429, 503, 504)


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

    def table(self, asked: str | None) -> str:
        """The name of the table that a request is of, whether there is one or not.

        Raises:
            ProblemError: It says none, and there are several (422).
        """
        ...

    async def items(self, table: str, asked: SearchBody) -> list[Found]:
        """What a search of a table finds, best first.

        Raises:
            ProblemError: There is no such table (404), or not the record in `after` in time (504),
                or never (422).
            HeadraceError: The condition is wrong, or the table can't be searched.
        """
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
        queries: Makes queries, with that model.
        columns: The metadata fields that the table keeps as columns.
    """

    def __init__(
        self, reader: TableReader, model: ModelShape, queries: Queries, columns: Collection[str]
    ) -> None:
        self.check_model = ModelCheck(reader, model)
        self._reader = reader
        self._queries = queries
        self._columns = columns

    async def items(self, asked: SearchBody) -> list[Found]:
        """What a search finds, best first.

        Raises:
            ProblemError: The table does not hold the record in `after` in time (504), or never
                will (422).
            HeadraceError: The condition is wrong, or the table can't be searched.
        """
        return await asyncio.to_thread(self._find, await self._queries.query(asked))

    def close(self) -> None:
        """Let go of the model."""
        self._queries.close()

    def _find(self, query: Query) -> list[Found]:
        self.check_model()
        return self._reader.find(query, self._columns)


def search_router(search: Searching) -> APIRouter:
    """The route that searches."""
    router = guarded(READ, tags=["search"], responses=problems(*_REFUSED))

    @router.post("/v1/search", summary="Find documents")
    async def post_search(body: Annotated[SearchBody, Body()], request: Request) -> Items:
        """Finds the documents nearest to some words: by meaning, by the words, or by both."""
        began = time.perf_counter()
        table = search.table(body.table)
        # Before anything is looked at: who may not search a table learns nothing of it.
        check_table(request, table)
        found = await search.items(table, body)
        items = [Item.model_validate(asdict(item)) for item in found]
        return Items(items=items, took_ms=round((time.perf_counter() - began) * 1000, 3))

    return router
