"""Upkeep of the table, inside its single writer.

Many small commits make many small files; a search slows down with their number. So the writer
compacts between two commits when the table's own statistics ask for it, removes versions that
nobody can still be reading, and tombstones that no replay can still need. The vector index is made
and kept up in a thread beside it, which conflicts with neither merges nor compaction as long as
the two upkeeps never run at once.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from sinks.store import LANCE_ERRORS, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    import lance

    from sinks.store import TableStore

__all__ = ["Maintenance", "Upkeep"]

log = structlog.get_logger(__name__)

MAX_FRAGMENTS: Final = 64
"""Files of a table before they are compacted: at 50 rows each, a search takes 8 ms with 10 of
them and 445 ms with 3,000."""

COMPACT_EVERY_S: Final = 20.0
"""The shortest time between two compactions: each takes 0.1 to 1.6 s from the commits."""

KEEP_VERSIONS: Final = timedelta(minutes=10)
"""For how long a reader may hold on to a version."""

HOUSEKEEPING_S: Final = 60.0
INDEX_TAIL: Final = 0.2
"""The share of rows outside the index, which a search scans, before it takes them in."""

ORPHAN_S: Final = 3600.0


@dataclass(frozen=True)
class Upkeep:
    """How a table is kept.

    Attributes:
        index_rows: Rows from which on it gets a vector index.
        tombstone_retention_s: How long a deleted document's row is kept, in seconds.
    """

    index_rows: int
    tombstone_retention_s: float


class Maintenance:
    """Keeps one table; called by its writer between commits.

    Args:
        store: The table.
        upkeep: How it is kept.
        clock: Seconds that never go back.
    """

    def __init__(
        self, store: TableStore, upkeep: Upkeep, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._upkeep = upkeep
        self._clock = clock
        self._compacted = clock()
        self._kept = clock()
        self._indexing: threading.Thread | None = None

    def sweep(self) -> None:
        """Remove files that a killed writer left half-written; Lance never does."""
        if not self._store.is_local:
            return
        before = time.time() - ORPHAN_S
        for orphan in Path(self._store.path).glob("data/.tmp*"):
            if orphan.stat().st_mtime < before:
                orphan.unlink(missing_ok=True)

    def run(self, dataset: lance.LanceDataset) -> None:
        """Do what is due, and nothing while the index is being worked on."""
        if self._indexing is not None and self._indexing.is_alive():
            return
        now = self._clock()
        if now - self._compacted > COMPACT_EVERY_S and len(dataset.get_fragments()) > MAX_FRAGMENTS:
            self._compact(dataset)
            self._compacted = self._clock()
        if now - self._kept > HOUSEKEEPING_S:
            self._purge(dataset)
            self._index(dataset)
            self._kept = self._clock()

    def _compact(self, dataset: lance.LanceDataset) -> None:
        started = time.monotonic()
        done = dataset.optimize.compact_files(
            target_rows_per_fragment=100_000, materialize_deletions_threshold=0.3
        )
        dataset.cleanup_old_versions(older_than=KEEP_VERSIONS)
        log.info(
            "table compacted",
            stage="table",
            files_removed=done.files_removed,
            files_added=done.files_added,
            ms=round((time.monotonic() - started) * 1000),
        )

    def _purge(self, dataset: lance.LanceDataset) -> None:
        """Remove old tombstones.

        Nothing can bring their documents back: records below the table's progress are dropped,
        and that is in the fence row, which stays.
        """
        kept = timedelta(seconds=self._upkeep.tombstone_retention_s)
        before = (datetime.now(UTC) - kept).strftime("%Y-%m-%d %H:%M:%S")
        old = f"deleted AND id IS NOT NULL AND embedded_at < timestamp '{before}'"
        count = dataset.count_rows(filter=old)
        if count:
            dataset.delete(old)
            log.info("tombstones removed", stage="table", rows=count)

    def _index(self, dataset: lance.LanceDataset) -> None:
        rows = dataset.count_rows()
        existing = [i for i in dataset.describe_indices() if i.field_names == ["vector"]]
        if not existing and rows >= self._upkeep.index_rows:
            self._beside(self._create_index, rows)
        elif existing:
            stats = dataset.stats.index_stats(existing[0].name)
            if stats["num_unindexed_rows"] > INDEX_TAIL * rows:
                self._beside(self._extend_index, rows)

    def _beside(self, work: Callable[[lance.LanceDataset], None], rows: int) -> None:
        def run() -> None:
            started = time.monotonic()
            try:
                work(self._store.open())
            except LANCE_ERRORS as error:
                # Searches go on without it, by scanning; the next round tries again.
                log.warning("index not kept up", stage="table", error=one_line(error))
                return
            seconds = round(time.monotonic() - started, 1)
            log.info("index kept up", stage="table", rows=rows, s=seconds)

        self._indexing = threading.Thread(target=run, name="index", daemon=True)
        self._indexing.start()

    @staticmethod
    def _create_index(dataset: lance.LanceDataset) -> None:
        # The square root of the rows: Lance's own rule of thumb. RQ was the fastest to build at
        # the recall of a scan (.997 at 20 probes, refined 10 times).
        partitions = max(1, math.isqrt(dataset.count_rows()))
        dataset.create_index("vector", "IVF_RQ", metric="cosine", num_partitions=partitions)

    @staticmethod
    def _extend_index(dataset: lance.LanceDataset) -> None:
        dataset.optimize.optimize_indices(num_indices_to_merge=1)
