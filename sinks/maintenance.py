"""Upkeep of the table, inside its single writer.

Many small commits make many small files; searches and commits slow down with their number. So the
writer merges the smallest of them between two commits, often and few at a time, and removes
tombstones that no replay can still need. The indexes of vectors and texts are made and kept up,
and versions that nobody can still be reading are removed, in a thread beside it. That conflicts
with neither merges nor compaction as long as the two upkeeps never run at once.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from sinks.errors import SinkError
from sinks.store import LANCE_ERRORS, one_line
from telemetry.limited import LimitedLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import lance

    from sinks.store import TableStore

__all__ = ["Maintenance", "Upkeep", "index_texts", "index_vectors"]

log = structlog.get_logger(__name__)
limited = LimitedLog(log)

TIERS: Final = (1_000, 10_000, 50_000)
"""Rows of a file, from small to large: files below a tier are merged until they reach it.

So a row is rewritten a few times in all, and most compactions are of a few hundred rows: 16 files
of 7 rows take 11 ms, as one commit does."""

FILE_BYTES: Final = 32 << 20
"""A file that has as much is large, however few its rows, and one compaction takes twice as much.

Lance decodes a column of up to 8,192 of a file's rows at a time: indexing one file of 1,184 texts
of 850 kB took 2 GiB, and merging as many stopped the commits for 22 s."""

FAN_OUT: Final = 16
"""How many files below a tier may wait: a commit takes 12 ms with 10 files and 21 with 60."""

DELETED: Final = 0.3
"""The share of a file's rows that may be gone before it is written anew."""

KEEP_VERSIONS: Final = timedelta(minutes=2)
"""For how long a reader may hold on to a version: each is a file, which commits look through."""

CLEAN_EVERY_S: Final = 20.0
REWRITE_EVERY_S: Final = 5.0
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
        text_index: Whether it gets a full-text index, at its first commit.
    """

    index_rows: int
    tombstone_retention_s: float
    text_index: bool = False


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
        self._cleaned = self._rewritten = self._kept = clock()
        self._text_due = upkeep.text_index
        self._aside: threading.Thread | None = None
        self._pauses: list[float] = []
        self._builds: deque[float] = deque()

    @property
    def busy(self) -> bool:
        """Whether there is work beside."""
        return self._aside is not None and self._aside.is_alive()

    def index_builds(self) -> tuple[float, ...]:
        """Seconds that each index took which was made or extended since the last call."""
        # The thread beside adds to the other end meanwhile.
        return tuple(self._builds.popleft() for _ in range(len(self._builds)))

    def sweep(self) -> None:
        """Remove files that a killed writer left half-written; Lance never does."""
        if not self._store.is_local:
            return
        before = time.time() - ORPHAN_S
        for orphan in Path(self._store.path).glob("data/.tmp*"):
            if orphan.stat().st_mtime < before:
                orphan.unlink(missing_ok=True)

    def run(self, dataset: lance.LanceDataset) -> None:
        """Do what is due, and nothing while there is work beside."""
        if self.busy:
            return
        if self._text_due:
            self._text_due = False
            if not _indexes_of(dataset, "text"):
                self._beside("text index not made", self._timed(index_texts))
                return
        self._compact(dataset)
        now = self._clock()
        if now - self._rewritten > REWRITE_EVERY_S:
            self._rewrite(dataset)
            self._rewritten = self._clock()
        if now - self._kept > HOUSEKEEPING_S:
            self._purge(dataset)
            self._tell()
            self._index(dataset)
            self._kept = self._clock()
        elif now - self._cleaned > CLEAN_EVERY_S:
            self._beside("versions not removed", self._clean)
            self._cleaned = self._clock()

    def _compact(self, dataset: lance.LanceDataset) -> None:
        """Merge files of the smallest tier that has too many."""
        files = dataset.get_fragments()
        for tier in TIERS:
            small = [file for file in files if _is_small(file, tier)]
            if len(small) > FAN_OUT:
                self._merge(dataset, small, tier)
                return

    def _rewrite(self, dataset: lance.LanceDataset) -> None:
        """Write files anew of which too many rows are gone."""
        worn = [
            file
            for file in dataset.get_fragments()
            if file.num_deletions > DELETED * file.physical_rows
        ]
        if worn:
            self._merge(dataset, worn, TIERS[-1])

    def _merge(
        self, dataset: lance.LanceDataset, chosen: Sequence[lance.LanceFragment], tier: int
    ) -> None:
        """Merge neighbours among the chosen files until each has a tier's rows, or many bytes."""
        started = time.monotonic()
        size = max(1, sum(map(_bytes, chosen)))
        rows = sum(file.physical_rows for file in chosen)
        others = {file.fragment_id for file in dataset.get_fragments()}
        others -= {file.fragment_id for file in chosen}
        compact = partial(
            dataset.optimize.compact_files,
            target_rows_per_fragment=min(tier, max(1, FILE_BYTES * rows // size)),
            materialize_deletions_threshold=DELETED,
            excluded_fragment_ids=sorted(others),
        )
        # Lance leaves out what would be beyond the limit even if it is the first; files that are
        # that unlike must not be left for ever.
        merged = compact(max_source_bytes=2 * FILE_BYTES)
        if not merged.fragments_removed:
            compact()
        self._pauses.append(time.monotonic() - started)

    def _tell(self) -> None:
        """One line for the compactions since the last one, of which there may be a hundred."""
        if self._pauses:
            log.info(
                "table compacted",
                stage="table",
                times=len(self._pauses),
                ms=round(1000 * sum(self._pauses)),
                longest_ms=round(1000 * max(self._pauses)),
            )
            self._pauses.clear()

    @staticmethod
    def _clean(dataset: lance.LanceDataset) -> None:
        dataset.cleanup_old_versions(older_than=KEEP_VERSIONS, error_if_tagged_old_versions=False)

    def _purge(self, dataset: lance.LanceDataset) -> None:
        """Remove old tombstones.

        Nothing can bring their documents back: records below the table's progress are dropped,
        and that is in the fence row, which stays.
        """
        kept = timedelta(seconds=self._upkeep.tombstone_retention_s)
        before = (datetime.now(UTC) - kept).strftime("%Y-%m-%d %H:%M:%S")
        old = f"deleted AND id IS NOT NULL AND embedded_at < timestamp '{before}'"
        join = self._store.schema.join
        if join is not None:
            old += f" AND {join.lasting}"
        count = dataset.count_rows(filter=old)
        if count:
            dataset.delete(old)
            log.info("tombstones removed", stage="table", rows=count)

    def _index(self, dataset: lance.LanceDataset) -> None:
        rows = dataset.count_rows()
        existing = _indexes_of(dataset, "vector", "text")
        self._text_due = self._upkeep.text_index and not _indexes_of(dataset, "text")
        if rows >= self._upkeep.index_rows and not _indexes_of(dataset, "vector"):
            self._beside("index not kept up", self._timed(index_vectors))
            return
        tails = (dataset.stats.index_stats(name)["num_unindexed_rows"] for name in existing)
        if max(tails, default=0) > INDEX_TAIL * rows:
            self._beside("index not kept up", self._timed(self._extend_index))

    def _beside(self, otherwise: str, work: Callable[[lance.LanceDataset], None]) -> None:
        """Work in a thread of its own; the flow goes on without it if it fails."""

        def run() -> None:
            try:
                work(self._store.open())
            except (SinkError, *LANCE_ERRORS) as error:
                # Searches go on by scanning, old versions stay; the next round tries again.
                limited.warning(otherwise, stage="table", error=one_line(error))

        self._aside = threading.Thread(target=run, name="upkeep", daemon=True)
        self._aside.start()

    def _timed(
        self, build: Callable[[lance.LanceDataset], None]
    ) -> Callable[[lance.LanceDataset], None]:
        """The same, which notes how long it took unless it fails."""

        def run(dataset: lance.LanceDataset) -> None:
            started = time.monotonic()
            build(dataset)
            self._builds.append(time.monotonic() - started)

        return run

    @staticmethod
    def _extend_index(dataset: lance.LanceDataset) -> None:
        with _told(dataset.count_rows()):
            dataset.optimize.optimize_indices(num_indices_to_merge=1)


def index_vectors(dataset: lance.LanceDataset) -> None:
    """Make the vector index."""
    # The square root of the rows: Lance's own rule of thumb. RQ was the fastest to build at the
    # recall of a scan (.997 at 20 probes, refined 10 times).
    rows = dataset.count_rows()
    with _told(rows):
        partitions = max(1, math.isqrt(rows))
        dataset.create_index("vector", "IVF_RQ", metric="cosine", num_partitions=partitions)


def index_texts(dataset: lance.LanceDataset) -> None:
    """Make the full-text index."""
    with _told(dataset.count_rows()):
        dataset.create_scalar_index("text", "INVERTED", with_position=False)


def _is_small(file: lance.LanceFragment, tier: int) -> bool:
    return file.physical_rows < tier and _bytes(file) < FILE_BYTES


def _bytes(file: lance.LanceFragment) -> int:
    """What it takes on disk; 0 where its writer did not note that."""
    return sum(part.file_size_bytes or 0 for part in file.data_files())


def _indexes_of(dataset: lance.LanceDataset, *columns: str) -> list[str]:
    """The names of the indexes on any of those columns."""
    wanted = [[column] for column in columns]
    return [index.name for index in dataset.describe_indices() if index.field_names in wanted]


@contextmanager
def _told(rows: int) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds = round(time.monotonic() - started, 1)
    log.info("index kept up", stage="table", rows=rows, s=seconds)
