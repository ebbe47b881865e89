"""The documents that came into the table last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

if TYPE_CHECKING:
    import lance

    from sinks.search import TableReader

__all__ = ["Fresh", "Latest"]

KEPT: Final = 12
FILES: Final = 8
"""How many of the newest files are looked at: a commit writes one."""

FILE_ROWS: Final = 2_000
"""The most rows of a file that are looked at, its last ones."""

CHARACTERS: Final = 240


@dataclass(frozen=True)
class Fresh:
    """A document that has just become searchable.

    Attributes:
        id: Its id.
        text: The beginning of its text; None where it was deleted.
        embedded_at_ms: When it left the model, in milliseconds since 1970.
    """

    id: str
    text: str | None
    embedded_at_ms: int


class Latest:
    """The last documents of a table, found without a look at the others; for one caller at a time.

    Only files that came since the last call are read. Compaction writes old rows into new files,
    so they are told by when they left the model.

    Args:
        reader: The table.
    """

    def __init__(self, reader: TableReader) -> None:
        self._reader = reader
        self._version = -1
        self._file = -1
        self._kept: list[Fresh] = []

    def documents(self) -> list[Fresh]:
        """The last ones, newest first.

        Raises:
            SinkError: There is no table, or it can't be read.
        """
        dataset = self._reader.latest()
        if dataset.version != self._version:
            if dataset.version < self._version:
                self._file, self._kept = -1, []  # another table in its place
            with self._reader.store.reading():
                found = self._read(dataset)
            newest = {one.id: one for one in sorted(self._kept + found, key=_age)}
            alive = [one for one in newest.values() if one.text is not None]
            self._kept = sorted(alive, key=_age, reverse=True)[:KEPT]
            self._version = dataset.version
        return self._kept

    def _read(self, dataset: lance.LanceDataset) -> list[Fresh]:
        """What new files have, deletions too: those have no text."""
        files = [one for one in dataset.get_fragments() if one.fragment_id > self._file]
        found: list[Fresh] = []
        for file in files[-FILES:]:
            skipped = max(0, file.count_rows() - FILE_ROWS)
            names = ["id", "text", "embedded_at", "chunk", "deleted"]
            rows = file.to_table(columns=names, offset=skipped)
            times = rows.column("embedded_at").cast(pa.int64())
            plain = rows.set_column(names.index("embedded_at"), "embedded_at", times)
            found += [
                Fresh(row["id"], _beginning(row), row["embedded_at"])
                for row in plain.to_pylist()
                if row["id"] is not None and not row["chunk"]
            ]
        self._file = max((one.fragment_id for one in files), default=self._file)
        return found


def _beginning(row: dict[str, Any]) -> str | None:
    return None if row["deleted"] else (row["text"] or "")[:CHARACTERS]


def _age(one: Fresh) -> int:
    return one.embedded_at_ms
