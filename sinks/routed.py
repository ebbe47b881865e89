"""Several tables of one flow, as others than their writer use them: made, checked, read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from operators.routing import directory_name
from sinks.directory import DirectorySchema, RoutedSchema, entries
from sinks.errors import SinkError
from sinks.schema import TableSchema, one_of
from sinks.store import TableStore, shared_caches

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from operators.current import CurrentRow

__all__ = ["RoutedStore"]

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True)
class RoutedStore:
    """The place and shape of a flow's tables, and of the directory beside them.

    Args:
        uri: A folder, or the URI of an object store.
        name: What makes the tables' names of records; see `operators.routing`.
        schema: The schema of each of them.
        model: The model's name.
        fingerprint: The model's fingerprint.
        max_tables: How many there may be.
    """

    uri: str
    name: str
    schema: RoutedSchema
    model: str
    fingerprint: str
    max_tables: int

    def __getstate__(self) -> dict[str, object]:
        # Another process has caches of its own.
        return {name: value for name, value in vars(self).items() if name != "_caches"}

    @cached_property
    def _caches(self) -> object:
        return shared_caches()

    @property
    def directory_schema(self) -> DirectorySchema:
        """The directory's schema."""
        return DirectorySchema(several_topics=self.schema.several_topics)

    @property
    def directory(self) -> TableStore:
        """The directory."""
        name = directory_name(self.name)
        return TableStore(self.uri, name, self.directory_schema, self.model, self.fingerprint)

    def table(self, name: str, session: object = None) -> TableStore:
        """One of the tables.

        Args:
            name: Its name.
            session: See `sinks.store.TableStore`.
        """
        own = self.schema
        # Which write wins is said by the directory, which knows of all tables.
        schema = TableSchema(
            own.dimension, own.columns, own.model_name, own.several_topics, replaces=True
        )
        return TableStore(self.uri, name, schema, self.model, self.fingerprint, session)

    def tables(self) -> Mapping[str, int]:
        """The names of the tables that there are, or are just made; see `sinks.fence.Fence`.

        Raises:
            SinkError: The directory can't be read.
        """
        directory = self.directory
        return directory.fence(directory.open()).tables or {}

    def named(self, name: str) -> TableStore:
        """One of the tables, which is there.

        Raises:
            SinkError: It is not, or the directory can't be read.
        """
        if name not in self.tables():
            raise SinkError(f"table: {name}: there is no such table of {self.name} in {self.uri}")
        return self.table(name)

    def ensure(self) -> None:
        """Make the directory if there is none; check that it fits if there is one.

        Raises:
            SinkError: It can't be made, or is of another model.
        """
        self.directory.ensure()

    def exists(self) -> bool:
        """Whether there is a directory."""
        return self.directory.exists()

    def look(self) -> str:
        """Check that directory and tables fit, or will once the flow has started; change nothing.

        Returns:
            What the flow will change of them at its start; empty where they are as they should be.

        Raises:
            SinkError: One has another schema or another model's vectors.
        """
        told = [self.directory.look()]
        for name, sequence in self.tables().items():
            store = self.table(name)
            if not store.is_gone():
                told.append(store.look())
            elif sequence:
                told.append(f"{name} is gone; its documents are read again from the topic")
        return next(filter(None, told), "")

    @property
    def is_local(self) -> bool:
        """Whether the tables lie in this machine's files."""
        return self.directory.is_local

    def count(self) -> int:
        """How many rows of documents there are in all tables, one for each chunk.

        Raises:
            SinkError: A table can't be read.
        """
        return sum(store.count() for store in map(self.table, self.tables()) if store.exists())

    def progress(self, lanes: Collection[str]) -> Mapping[str, int]:
        """The committed next offset of those lanes that the tables know.

        Raises:
            SinkError: The directory can't be read.
        """
        return self.directory.progress(lanes)

    def lookup(self, ids: Collection[str]) -> Mapping[str, CurrentRow]:
        """The committed rows of those ids, without deleted ones. See `operators.current`.

        Raises:
            SinkError: A table can't be read.
        """
        where = self._where(ids)
        found = self._gathered(where, TableStore.lookup)
        # One that a killed writer had moved, and no other has noted yet, is in another table.
        moved = {one for own in where.values() for one in own} - found.keys()
        for name in self.tables() if moved else ():
            table = self.table(name, self._caches)
            found |= table.lookup(moved) if table.exists() else {}
        return found

    def vectors(self, ids: Collection[str]) -> Mapping[bytes, NDArray[np.float32]]:
        """The vectors of those documents. See `operators.current`.

        Raises:
            SinkError: A table can't be read.
        """
        return self._gathered(self._where(ids), TableStore.vectors)

    def _gathered(
        self,
        where: Mapping[str, Collection[str]],
        read: Callable[[TableStore, Collection[str]], Mapping[Key, Value]],
    ) -> dict[Key, Value]:
        """What the tables have of documents, each of its own."""
        found: dict[Key, Value] = {}
        for table, own in where.items():
            found |= read(self.table(table, self._caches), own)
        return found

    def _where(self, ids: Collection[str]) -> dict[str, list[str]]:
        """The documents that there are, by their tables."""
        if not ids:
            return {}
        directory = self.directory
        dataset = directory.open()
        with directory.reading():
            rows = dataset.to_table(
                columns=directory.schema.arrow.names, filter=f"{one_of(ids)} AND NOT deleted"
            )
        where: dict[str, list[str]] = {}
        for identity, entry in entries(rows).items():
            if entry.table is not None:
                where.setdefault(entry.table, []).append(identity)
        return where
