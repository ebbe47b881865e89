"""Searches of the table that readers are to have, and of another one once they are to have that."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import structlog

from flows.access import current
from headrace.errors import HeadraceError
from serving.problems import no_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flows.settings import Settings
    from serving.models import SearchBody
    from serving.search import Search
    from sinks.latest import Fresh, Latest
    from sinks.search import Found

__all__ = ["Following", "Readers"]

log = structlog.get_logger(__name__)

LOOK_EVERY_S: Final = 0.5
"""How often it is looked whether readers are to have another table."""


class Readers:
    """All that reads one table.

    Args:
        settings: They name the table and its model.
        search: Searches it.
        latest: Its last documents.
    """

    def __init__(self, settings: Settings, search: Search, latest: Latest) -> None:
        self.settings = settings
        self.search = search
        self.latest = latest


class Following:
    """Searches the table that the alias of `table.name` leads to, with that table's model.

    Where the alias is changed, the other table's model is loaded while the one before still
    answers. So a request has table and model of one side, whenever it comes. Readers of a table
    that is not served any more go with the last request that has them.

    Args:
        settings: They name the table as readers do.
        make: Loads a model and opens its table.

    Raises:
        HeadraceError: The model can't be had, or the aliases can't be read.
    """

    def __init__(self, settings: Settings, make: Callable[[Settings], Readers]) -> None:
        self._settings = settings
        self._make = make
        self._readers = make(current(settings))
        self._refused = ""

    def table(self, asked: str | None) -> str:
        """See `serving.search.Searching`."""
        return self._settings.table.name if asked is None else asked

    async def items(self, table: str, asked: SearchBody) -> list[Found]:
        """See `serving.search.Searching`."""
        if table != self._settings.table.name:
            raise no_table(table)
        return await self._readers.search.items(asked)

    def check_model(self) -> None:
        """Refuse a table with vectors of another model than its own.

        Raises:
            SinkError: It has, or it can't be read.
        """
        self._readers.search.check_model()

    def documents(self) -> list[Fresh]:
        """The table's last documents, newest first.

        Raises:
            SinkError: There is no table, or it can't be read.
        """
        return self._readers.latest.documents()

    def look(self) -> None:
        """Go over to another table, if that is what readers are to have."""
        try:
            wanted = current(self._settings)
            if wanted == self._readers.settings:
                return
            before, self._readers = self._readers, self._make(wanted)
        except HeadraceError as error:
            # What is served stays served; each fault is told once.
            if str(error) != self._refused:
                self._refused = str(error)
                log.warning("table not changed", stage="http", error=self._refused)
            return
        self._refused = ""
        names = before.settings.table.name, wanted.table.name
        log.info("table changed", stage="http", before=names[0], table=names[1])

    @contextmanager
    def running(self) -> Iterator[None]:
        """Look from time to time, in a thread, since a model takes seconds to load."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(LOOK_EVERY_S):
                self.look()

        thread = threading.Thread(target=watch, name="aliases", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            self._readers.search.close()
