"""Several tables of which one is behind their directory: gone, or come from a backup.

What such a table lacks must be read again, though the directory has it and would drop it as known.
So the directory forgets what the table lacks, and its progress goes back to where the table stands.
What the table has of documents that are elsewhere by now, or deleted, goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from operators.records import Lane
from sinks.directory import COLUMN
from sinks.errors import WriterLostError
from sinks.fence import LOST
from sinks.schema import one_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sinks.fence import Fence
    from sinks.routed import RoutedStore
    from sinks.writer import TableWriter

__all__ = ["Repair", "known"]

log = structlog.get_logger(__name__)

IDS_AT_ONCE: Final = 1_000


def known(progress: Mapping[str, int], *, several: bool) -> str:
    """The condition that a row is of a record below some progress.

    Args:
        progress: The next offset of each lane, by its key.
        several: Whether rows say which topic they are of.
    """
    below = []
    for key, offset in progress.items():
        lane = Lane.parse(key)
        part = f"source_partition = {lane.partition} AND source_offset < {offset}"
        below.append(f"({part} AND source_topic = '{lane.topic}')" if several else f"({part})")
    return " OR ".join(below) or "false"


@dataclass(frozen=True)
class _Behind:
    """A table that is behind.

    Attributes:
        name: Its name.
        fence: What its fence row says; None where it is gone.
        empty: Whether the directory has no document of it, and nothing is to be done but to let it
            go.
    """

    name: str
    fence: Fence | None
    empty: bool = False

    @property
    def progress(self) -> Mapping[str, int]:
        """What it has."""
        return {} if self.fence is None else self.fence.progress


class Repair:
    """Brings directory and tables together again, whatever was restored or deleted.

    Args:
        store: The tables.
        directory: The directory's writer.
        opened: Takes over a table, by its name.
    """

    def __init__(
        self,
        store: RoutedStore,
        directory: TableWriter,
        opened: Callable[[str], TableWriter],
    ) -> None:
        self._store = store
        self._directory = directory
        self._opened = opened
        self._noted = directory.fence.tables or {}
        self._nothing = store.directory.schema.arrow.empty_table()

    def run(self) -> None:
        """See which tables are behind, and mend that.

        First it is noted that they are to be mended, in one commit with the lower progress. So a
        writer that is ended in between begins again.

        Raises:
            SinkError: A table can't be read or written.
            WriterLostError: Some were; the flow's next start reads what they lack.
        """
        found = list(self._behind())
        if not found:
            return
        gone = {one.name for one in found if one.fence is None}
        tables = {name: sequence for name, sequence in self._noted.items() if name not in gone}
        lacking = [one for one in found if not one.empty]
        if lacking:
            marks = {one.name: LOST for one in lacking}
            lowest = self._lowest(lacking)
            self._directory.commit(
                self._nothing, lowest, tables={**self._noted, **marks}, anew=True
            )
            tables |= {one.name: self._kept(one) for one in lacking if one.fence is not None}
            for one in lacking:
                self._directory.remove(f"{COLUMN} = '{one.name}' AND NOT ({self._below(one)})")
        self._directory.commit(self._nothing, {}, tables=tables)
        log.warning("tables mended", stage="table", tables=[one.name for one in found])
        if lacking:
            raise WriterLostError(
                f"table.name: {', '.join(one.name for one in lacking)}: gone from "
                f"{self._store.uri}, or from a backup; what is lacking is read again from the "
                "topic: start again to go on"
            )

    def _behind(self) -> Iterator[_Behind]:
        for name, sequence in self._noted.items():
            store = self._store.table(name)
            if store.is_gone():
                if sequence == LOST or self._has_documents(name):
                    yield _Behind(name, None)
                elif sequence:  # else it is only announced
                    yield _Behind(name, None, empty=True)
            else:
                fence = store.fence(store.open())
                if sequence == LOST or fence.sequence < sequence:
                    yield _Behind(name, fence)

    def _has_documents(self, name: str) -> bool:
        return len(self._directory.rows_of(f"{COLUMN} = '{name}'", ["key"])) > 0

    def _lowest(self, lacking: Sequence[_Behind]) -> dict[str, int]:
        """The progress that the directory and all of them have."""
        progress = self._directory.fence.progress
        return {
            lane: min(offset, *(one.progress[lane] for one in lacking))
            for lane, offset in progress.items()
            if all(lane in one.progress for one in lacking)
        }

    def _below(self, one: _Behind) -> str:
        return known(one.progress, several=self._store.schema.several_topics)

    def _kept(self, one: _Behind) -> int:
        """Remove what a table has of documents that are not in it any more; its sequence then."""
        writer = self._opened(one.name)
        self._directory.confirm()
        held = writer.rows_of("NOT deleted AND chunk = 0", ["id"]).column("id").to_pylist()
        for first in range(0, len(held), IDS_AT_ONCE):
            ids = set(held[first : first + IDS_AT_ONCE])
            here = f"{one_of(ids)} AND {COLUMN} = '{one.name}'"
            stale = ids - set(self._directory.rows_of(here, ["id"]).column("id").to_pylist())
            if stale:
                writer.remove(one_of(stale))
        return writer.fence.sequence
