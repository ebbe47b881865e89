"""What a worker and the process that writes its table say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sinks.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from sinks.maintenance import Upkeep
    from sinks.routed import RoutedStore
    from sinks.store import TableStore

__all__ = ["Commit", "Failed", "Opened", "Opening", "Writer", "Written"]


@dataclass(frozen=True, slots=True)
class Opening:
    """Open the table for writing: the arguments of `sinks.writer.TableWriter`."""

    store: TableStore | RoutedStore
    upkeep: Upkeep
    max_chunks: int


@dataclass(frozen=True, slots=True)
class Opened:
    """The table is open.

    Attributes:
        progress: The next offset of each lane, by the lane's key, as the table had it.
        rows: The table's rows.
    """

    progress: Mapping[str, int]
    rows: int


@dataclass(frozen=True, slots=True)
class Commit:
    """Merge rows and progress in one commit.

    Attributes:
        rows: An Arrow IPC stream of the table's schema.
        progress: The next offset of each lane that they bring on, by the lane's key.
    """

    rows: bytes
    progress: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Written:
    """The commit is done.

    Attributes:
        rows: The table's rows.
        cpu_s: CPU-seconds of the process since it last answered.
        index_builds: Seconds that each index took which was made or extended since then.
    """

    rows: int
    cpu_s: float
    index_builds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The table can't be written, and the process ends.

    Attributes:
        message: One line for a person.
        exit_code: What the worker is to end with.
    """

    message: str
    exit_code: int = SinkError.exit_code


class Writer(Protocol):
    """Where the table's part commits."""

    @property
    def opened(self) -> Opened:
        """The table as it was taken over."""

    def commit(self, rows: pa.Table, progress: Mapping[str, int]) -> Written:
        """Merge rows and progress in one commit.

        Raises:
            SinkError: The table can't be written, or another writer has taken it over.
        """

    def close(self) -> None:
        """Let go of the table; never raises."""
