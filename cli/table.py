"""The table as commands read it: without the model that its writer needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sinks.errors import SinkError
from sinks.schema import TableSchema
from sinks.store import TableStore

if TYPE_CHECKING:
    from flows.settings import Settings

__all__ = ["existing_store", "reading_store"]


def reading_store(settings: Settings) -> TableStore:
    """The table that the settings name, to be opened and read only."""
    table = settings.table
    return TableStore(table.uri, table.name, TableSchema(0, table.columns), "", "")


def existing_store(settings: Settings) -> TableStore:
    """The same, once it is there.

    Raises:
        SinkError: It is not.
    """
    store = reading_store(settings)
    if not store.exists():
        raise SinkError(
            f"table.name: {store.name}: there is no such table in {store.uri}; the flow makes it: "
            "python -m bytewax.run flows.embed"
        )
    return store
