"""Searches of the tables that records name: each of one of them, by its name.

Only names that the directory has lead to a table: what a request says is never a path.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from serving.problems import ProblemError, no_table
from serving.search import ModelCheck
from sinks.search import TableReader
from sinks.store import shared_caches

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from flows.access import ModelShape
    from serving.models import SearchBody
    from serving.queries import Queries
    from sinks.latest import Fresh
    from sinks.routed import RoutedStore
    from sinks.search import Found, Query

__all__ = ["RoutedSearch", "RoutedTables"]

KEPT_READERS: Final = 32
"""How many tables are kept open, those that were searched last."""

KNOWN_S: Final = 1.0
"""For how long it is taken for granted that a table is still there."""


class RoutedTables:
    """Readers of tables by their names, some of them kept; safe for several threads.

    They share caches as large as one table's own.

    Args:
        store: The tables.
        model: The model that queries are embedded with.
    """

    def __init__(self, store: RoutedStore, model: ModelShape) -> None:
        self._store = store
        self._directory = TableReader(store.directory)
        self.check_model = ModelCheck(self._directory, model)
        self._session = shared_caches()
        self._lock = threading.Lock()
        self._readers: OrderedDict[str, TableReader] = OrderedDict()
        self._names: Collection[str] = ()
        self._looked = -KNOWN_S

    @property
    def template(self) -> str:
        """What makes the tables' names."""
        return self._store.name

    def progress(self) -> Mapping[str, int]:
        """The next offset of each lane that all tables have, by the lane's key.

        Raises:
            SinkError: The directory can't be read.
        """
        return self._directory.fence().progress

    def reader(self, name: str) -> TableReader:
        """What reads a table.

        Raises:
            ProblemError: The directory does not have it (404).
            SinkError: The directory can't be read, or is of another model.
        """
        self.check_model()
        if not self._is_known(name):
            raise no_table(name)
        with self._lock:
            reader = self._readers.get(name)
            if reader is None:
                reader = self._readers[name] = TableReader(self._store.table(name, self._session))
            self._readers.move_to_end(name)
            if len(self._readers) > KEPT_READERS:
                self._readers.popitem(last=False)
        return reader

    def _is_known(self, name: str) -> bool:
        """Whether the directory has a table; one that it did not have is looked for anew."""
        now = time.monotonic()
        if name not in self._names or now - self._looked >= KNOWN_S:
            self._names = self._directory.fence().tables or {}
            self._looked = now
        return name in self._names


class RoutedSearch:
    """Searches one of several tables for one worker's requests.

    Args:
        tables: The tables.
        queries: Makes queries, with the model of all of them.
        columns: The metadata fields that the tables keep as columns.
    """

    def __init__(self, tables: RoutedTables, queries: Queries, columns: Collection[str]) -> None:
        self._tables = tables
        self._queries = queries
        self._columns = columns

    def table(self, asked: str | None) -> str:
        """See `serving.search.Searching`."""
        if asked is None:
            detail = f"table: must be given: each record names its own ({self._tables.template})"
            raise ProblemError(422, "table_needed", detail)
        return asked

    async def items(self, table: str, asked: SearchBody) -> list[Found]:
        """See `serving.search.Searching`."""
        # A table may be made for the very record that the search is to see.
        query = await self._queries.query(asked)
        return await asyncio.to_thread(self._find, table, query)

    def check_model(self) -> None:
        """Refuse tables with vectors of another model than that of the queries.

        Raises:
            SinkError: They have, or the directory can't be read.
        """
        self._tables.check_model()

    def documents(self) -> list[Fresh]:
        """None: the last documents of all tables together are nobody's to see."""
        return []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let go of the model at the end."""
        try:
            yield
        finally:
            self._queries.close()

    def _find(self, table: str, query: Query) -> list[Found]:
        return self._tables.reader(table).find(query, self._columns)
