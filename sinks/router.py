"""The single writer of several tables: shares each commit out among them.

No commit spans two tables, so their order is what keeps them right, wherever it is cut off:

1. A table's name stands in the directory before the table is made.
2. Each table gets its rows.
3. A document that has gone to another table is deleted in the one that it was in. Not before: a
   record that changes only metadata needs the row that it moves, also when it is read again.
4. The directory comes last, with where each document is now and with the progress.

So a document is always in a table, but for a moment within a move in one alone, and what the
directory does not know yet is younger than its progress. A writer that takes over looks for such
rows in each table that was written after the directory, ends their moves, notes them, and goes on;
what it is given again changes nothing.
"""

from __future__ import annotations

import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import structlog

from operators.routing import TABLE
from sinks.directory import COLUMN, entries, shares
from sinks.errors import SinkError
from sinks.repair import Repair, known
from sinks.schema import one_of
from sinks.store import shared_caches
from sinks.writer import TableWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sinks.directory import Shares
    from sinks.fence import Fence
    from sinks.maintenance import Upkeep
    from sinks.routed import RoutedStore

__all__ = ["RoutedWriter"]

log = structlog.get_logger(__name__)

AT_ONCE: Final = 4
"""How many tables are written at a time: Lance works without the interpreter's lock."""

KEPT_AT_ONCE: Final = 8
"""How many tables are kept up between two commits."""

BUSY: Final = 2
"""How many of them may have their indexes made beside: each build takes memory and a core."""

NEARLY: Final = 0.9
"""The share of the most tables from which on each further one is a warning."""


class RoutedWriter:
    """Writes the tables; only one may, and a second one ends the first.

    Args:
        store: The tables.
        upkeep: How each is kept.
        max_chunks: The most rows a document can have.

    Raises:
        SinkError: A table can't be opened, or holds a key twice.
        WriterLostError: A table is gone or from a backup; see `sinks.repair`.
    """

    def __init__(self, store: RoutedStore, upkeep: Upkeep, max_chunks: int) -> None:
        self._store = store
        self._upkeep = upkeep
        self._max_chunks = max_chunks
        self._session = shared_caches()
        no_index = replace(upkeep, index_rows=sys.maxsize, text_index=False)
        # From here on a second copy can't finish a commit, and no table is new but by this one.
        self._directory = TableWriter(store.directory, no_index, 1)
        self._nothing = store.directory.schema.arrow.empty_table()
        self._tables: dict[str, TableWriter] = {}
        self._due: deque[str] = deque()
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="table")
        Repair(store, self._directory, self._opened).run()
        self._take_over()

    @property
    def fence(self) -> Fence:
        """The directory's fence row."""
        return self._directory.fence

    @property
    def rows(self) -> int:
        """The rows of all tables."""
        return sum(writer.rows for writer in self._tables.values())

    def commit(self, rows: pa.Table, progress: Mapping[str, int]) -> None:
        """Merge rows into their tables, then where they are and the progress.

        Args:
            rows: As `sinks.directory.RoutedSchema.rows` makes them, each key once.
            progress: The next offset of each lane that they bring on, by the lane's key.

        Raises:
            SinkError: A table can't be written, or another writer has taken it over, or there
                would be too many.
        """
        share = shares(rows, entries(self._held(rows)))
        plain = rows.drop_columns(TABLE)
        self._make(share.merged.keys() - self._tables.keys())
        self._merge(share.merged, lambda own: _take(plain, own), progress)
        self._leave(plain, share)
        self._directory.commit(self._heads(plain, share), progress, tables=self._sequences())

    def keep_up(self) -> None:
        """Do what upkeep is due, of some of the tables that were written.

        Raises:
            SinkError: A table can't be written.
        """
        self._directory.keep_up()
        for _ in range(min(KEPT_AT_ONCE, len(self._due))):
            if sum(writer.busy for writer in self._tables.values()) >= BUSY:
                return
            # Its indexes may have grown beside since it was written.
            self._tables[self._due.popleft()].idle()

    def idle(self) -> None:
        """Nothing to commit: see whether this is still the writer, and keep a table up.

        Raises:
            SinkError: Another writer has taken the tables over, or one can't be kept up.
        """
        self._directory.idle()
        if not self._due:
            self._due.extend(self._tables)
        self.keep_up()

    def index_builds(self) -> tuple[float, ...]:
        """Seconds that each index took which was made or extended since the last call."""
        return tuple(chain.from_iterable(own.index_builds() for own in self._tables.values()))

    def _leave(self, rows: pa.Table, share: Shares) -> None:
        """Delete documents where they were before."""
        schema = self._store.schema
        self._merge(
            share.leaving, lambda own: schema.tombstones(_take(rows, own), [0] * len(own)), {}
        )

    def _heads(self, rows: pa.Table, share: Shares) -> pa.Table:
        """The directory's rows of the writes that have won."""
        return self._store.directory_schema.written(_take(rows, share.heads), share.tables)

    def _held(self, rows: pa.Table) -> pa.Table:
        """The directory's rows of some documents."""
        names = ["id", COLUMN, *self._store.schema.stamp_columns]
        ids = set(rows.column("id").to_pylist())
        if not ids:
            return self._nothing.select(names)
        return self._directory.rows_of(one_of(ids), names)

    def _merge(
        self,
        share: Mapping[str, Sequence[int]],
        rows_of: Callable[[Sequence[int]], pa.Table],
        progress: Mapping[str, int],
    ) -> None:
        """Commit to several tables, side by side."""

        def write(name: str) -> None:
            self._tables[name].commit(rows_of(share[name]), progress)

        for _ in self._pool.map(write, share):
            pass
        due = set(self._due)
        self._due.extend(name for name in share if name not in due)

    def _make(self, names: Collection[str]) -> None:
        """Make tables that are not there yet, once the directory has their names.

        One by one: where capital letters are not told apart, the second of two is there by then.
        """
        if not names:
            return
        self._check_number(len(self._tables) + len(names), min(names))
        for name in sorted(names):
            self._check_new(name)
            self._directory.commit(self._nothing, {}, tables={**self._sequences(), name: 0})
            self._tables[name] = self._opened(name)
            log.info("table made", stage="table", table=name, tables=len(self._tables))
        # A second copy may have taken over meanwhile, and this one a table from it.
        self._directory.confirm()

    def _check_number(self, number: int, name: str) -> None:
        most = self._store.max_tables
        if number > most:
            raise SinkError(
                f"table.max_tables: {most}: {name} would be one more; if {self._store.name} is "
                "meant to make as many, set a higher one"
            )
        if number >= NEARLY * most:
            log.warning("nearly as many tables as there may be", stage="table", of=most, now=number)

    def _check_new(self, name: str) -> None:
        """A table that the directory does not know is not this flow's, or has lost its directory.

        Its documents could not be found, nor deleted.
        """
        if not self._store.table(name).is_gone():
            raise SinkError(
                f"table.name: {name}: is there already, and {self._store.directory.name} knows "
                "nothing of it: delete it to have it made anew, or set another table.name"
            )

    def _opened(self, name: str) -> TableWriter:
        """Take a table over; the directory must be confirmed before anything is written to it.

        Raises:
            SinkError: It can't be opened, or has other columns than the settings say.
        """
        store = self._store.table(name, self._session)
        store.ensure()  # maybe its name was all that was written
        return TableWriter(store, self._upkeep, self._max_chunks)

    def _take_over(self) -> None:
        """Take all tables over, and note what the writer before this one has not noted."""
        noted = self.fence.tables or {}
        self._tables = dict(zip(noted, self._pool.map(self._opened, noted), strict=True))
        self._directory.confirm()
        # To take a table over was one commit.
        ahead = [name for name in noted if self._tables[name].fence.sequence - 1 > noted[name]]
        for name in ahead:
            self._note(name)
        if self._tables:
            self._directory.commit(self._nothing, {}, tables=self._sequences())

    def _note(self, name: str) -> None:
        """Note the documents of a table that were put there after the directory was written."""
        schema = self._store.schema
        columns = ["id", "embedded_at", "model", *schema.stamp_columns, "chunk", "key"]
        below = known(self.fence.progress, several=schema.several_topics)
        younger = f"NOT deleted AND chunk = 0 AND NOT ({below})"
        heads = self._tables[name].rows_of(younger, columns)
        if len(heads):
            named = heads.append_column(TABLE, pa.array([name] * len(heads), pa.string()))
            log.info("rows noted", stage="table", table=name, rows=len(heads))
            share = shares(named, entries(self._held(heads)))
            self._leave(heads, share)
            # The sequences wait until all tables are looked through.
            self._directory.commit(self._heads(heads, share), {})

    def _sequences(self) -> dict[str, int]:
        """What the directory is to know of each table."""
        return {name: writer.fence.sequence for name, writer in self._tables.items()}


def _take(rows: pa.Table, indices: Sequence[int]) -> pa.Table:
    return rows.take(pa.array(indices, pa.int64()))
