"""The fence row: a table's progress, and whose turn it is to write it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from sinks.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LOST", "Fence"]

FENCE_VERSION: Final = 1

LOST: Final = -1
"""In a directory's fence: that a table is gone, and that its documents are to be read again."""

_SOMETIMES: Final = ("seeded", "tables")
"""What a fence row has only where it is needed."""


@dataclass(frozen=True)
class Fence:
    """What the fence row says, in its column `metadata`.

    Attributes:
        model: The model's name.
        fingerprint: The model's fingerprint.
        writer: Who wrote last.
        sequence: Rises with each commit.
        progress: The next offset of each lane, by the lane's key.
        version: Of this layout.
        seeded: While the table is seeded with the rows of another, how many of those have been
            taken; its progress is that of the other's once all have. None otherwise.
        tables: Of a directory (`sinks.directory`), the tables that it leads to, with the sequence
            that each had when it was written. None otherwise.
    """

    model: str
    fingerprint: str
    writer: str = ""
    sequence: int = 0
    progress: Mapping[str, int] = field(default_factory=dict)
    version: int = FENCE_VERSION
    seeded: int | None = None
    tables: Mapping[str, int] | None = None

    def json(self) -> str:
        """The fence as JSON."""
        fields = asdict(self)
        for name in _SOMETIMES:
            if fields[name] is None:
                del fields[name]
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Fence:
        """The fence that JSON holds.

        Raises:
            SinkError: A later release wrote it, or another program.
        """
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            fields = None
        version = fields.get("version") if isinstance(fields, dict) else None
        if type(version) is int and version != FENCE_VERSION:
            raise SinkError(
                f"table.name: its fence row is of version {str(version)[:20]}, this release reads "
                f"{FENCE_VERSION}: run the release that wrote it, or set another table.name"
            )
        if version is None or not _is_fence(fields):
            raise SinkError(
                "table.name: its fence row can't be read: another program has written it; restore "
                "a backup of the table, or set another table.name"
            )
        return cls(**fields)

    def after(
        self,
        writer: str,
        progress: Mapping[str, int],
        *,
        seeded: int | None = None,
        tables: Mapping[str, int] | None = None,
        anew: bool = False,
    ) -> Fence:
        """The fence of the next commit.

        Args:
            writer: Who writes it.
            progress: The next offset of each lane that it brings on.
            seeded: See `Fence`.
            tables: See `Fence`; as it was unless given.
            anew: Whether what was read before is to be read again.
        """
        merged = {**({} if anew else self.progress), **progress}
        return replace(
            self,
            writer=writer,
            sequence=self.sequence + 1,
            progress=merged,
            seeded=seeded,
            tables=self.tables if tables is None else tables,
        )


def _is_fence(fields: dict[str, Any]) -> bool:
    """Whether these are a fence's fields, each of its type."""
    kinds = {"model": str, "fingerprint": str, "writer": str, "sequence": int, "version": int}
    seeded, tables = fields.get("seeded"), fields.get("tables")
    return (
        fields.keys() - set(_SOMETIMES) == {*kinds, "progress"}
        and (seeded is None or (type(seeded) is int and seeded >= 0))
        and all(type(fields[name]) is kind for name, kind in kinds.items())
        and _counts(fields.get("progress"), 0)
        and (tables is None or _counts(tables, LOST))
    )


def _counts(found: object, least: int) -> bool:
    """Whether something is an object of whole numbers."""
    return isinstance(found, dict) and all(
        type(number) is int and number >= least for number in found.values()
    )
