from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from operators.encoding import Encoded
from operators.records import Kind, OutcomeBatch
from sinks import maintenance
from sinks.maintenance import Maintenance, Upkeep
from tests.samples import LANE, Clock, Fields, Row, embedding, outcomes, tombstone, until
from tests.sinks.tables import NEVER, Table, live, store_in

if TYPE_CHECKING:
    import lance
    import pytest

HOUR_MS = 3_600_000


def kept(table: Table, upkeep: Upkeep) -> tuple[Maintenance, Clock]:
    """The table's upkeep on a clock of our own, instead of the writer's."""
    clock = Clock()
    return Maintenance(table.store, upkeep, clock), clock


def at(batch: OutcomeBatch, age: timedelta) -> OutcomeBatch:
    """The batch as it would be, had it left the model so long ago."""
    when = int((datetime.now(UTC) - age).timestamp() * 1000)
    return replace(batch, embedded_at=when)


def test_removes_old_tombstones_alone(tmp_path: Path) -> None:
    """A deleted document's row goes when its time is over; young ones, documents, fence stay."""
    table = Table(store_in(tmp_path))
    old, young = timedelta(hours=3), timedelta(minutes=30)
    table.commit(at(outcomes([tombstone("old"), embedding("kept", "old")]), old))
    table.commit(at(outcomes([tombstone("young")], 2), young))
    upkeep, clock = kept(table, Upkeep(1 << 40, tombstone_retention_s=3600))
    upkeep.run(table.writer._dataset)
    assert len(table.rows) == 3
    clock.now += maintenance.HOUSEKEEPING_S + 1
    upkeep.run(table.writer._dataset)
    assert [row["id"] for row in table.rows] == ["kept", "young"]
    assert table.progress == {LANE.key: 3}
    # The writer goes on as before.
    table.commit(outcomes([embedding("old", "again")], 3))
    assert live(table.store) == {("kept", 0): "old", ("old", 0): "again"}


def test_time_zone_does_not_move_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The age of a tombstone is counted in UTC wherever the machine stands."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        table = Table(store_in(tmp_path))
        table.commit(at(outcomes([tombstone("young")]), timedelta(minutes=30)))
        table.commit(at(outcomes([tombstone("old")], 1), timedelta(minutes=90)))
        upkeep, clock = kept(table, Upkeep(1 << 40, tombstone_retention_s=3600))
        clock.now += maintenance.HOUSEKEEPING_S + 1
        upkeep.run(table.writer._dataset)
        assert [row["id"] for row in table.rows] == ["young"]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_compaction_keeps_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small files become few, with the same rows, and the writer goes on."""
    monkeypatch.setattr(maintenance, "FAN_OUT", 4)
    table = Table(store_in(tmp_path))
    for first in range(8):
        table.commit(outcomes([embedding(f"{first}"), embedding("same", f"{first}")], 2 * first))
    before = table.rows
    fragments = len(table.writer._dataset.get_fragments())
    upkeep, _ = kept(table, NEVER)
    upkeep.run(table.writer._dataset)
    assert len(table.writer._dataset.get_fragments()) < fragments
    assert table.rows == before
    table.commit(outcomes([embedding("more")], 16))
    assert len(table.rows) == len(before) + 1
    assert table.progress == {LANE.key: 17}


def sizes(table: Table) -> list[int]:
    """The rows of each of the table's files, gone ones included."""
    return [file.physical_rows for file in table.store.open().get_fragments()]


def test_large_files_are_not_written_again_for_small_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that have reached a tier stay as they are until there are many of their size."""
    monkeypatch.setattr(maintenance, "FAN_OUT", 2)
    monkeypatch.setattr(maintenance, "TIERS", (10, 100))
    rng = np.random.default_rng(0)
    table = Table(store_in(tmp_path))
    upkeep, _ = kept(table, NEVER)
    upkeep.run(table.writer._dataset)
    offset = 0
    seen: list[int] = []
    for _ in range(12):
        table.commit(random_batch(4, offset, rng))
        offset += 4
        upkeep.run(table.writer._dataset)
        seen.append(len(sizes(table)))
    assert max(seen) <= 5
    assert len(table.rows) == 48
    assert table.progress == {LANE.key: 48}
    tiers = [rows for rows in sizes(table) if rows >= 10]
    assert tiers
    assert all(rows < 100 for rows in tiers)


def letters(rows: int, first: int, size: int, rng: np.random.Generator) -> OutcomeBatch:
    """Documents of so many random bytes, which no compression makes smaller."""
    texts = [rng.bytes(size // 2).hex() for _ in range(rows)]
    return outcomes([embedding(f"{first + i}", text) for i, text in enumerate(texts)], first)


def bytes_of(table: Table) -> list[int]:
    """The bytes of each of the table's files."""
    files = table.store.open().get_fragments()
    return [sum(part.file_size_bytes or 0 for part in file.data_files()) for file in files]


def test_files_of_few_large_rows_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with many bytes is not merged again, so that none grows without bound.

    Lance holds a file's texts in memory while it indexes them. Beside an index, too, which parts
    the files that it covers from the others: Lance merges none of one with one of the other.
    """
    monkeypatch.setattr(maintenance, "FAN_OUT", 4)
    monkeypatch.setattr(maintenance, "FILE_BYTES", 80_000)
    rng = np.random.default_rng(0)
    table = Table(store_in(tmp_path))
    upkeep, _ = kept(table, Upkeep(1 << 40, tombstone_retention_s=1e9, text_index=True))
    for first in range(0, 240, 8):
        table.commit(letters(8, first, 10_000, rng))
        upkeep.run(table.writer._dataset)
        until(lambda: not indexing(upkeep))
    assert len(table.rows) == 240
    assert max(bytes_of(table)) < 160_000
    assert sum(size < 80_000 for size in bytes_of(table)) <= 5
    assert len(bytes_of(table)) < 25


def test_files_that_are_unlike_are_merged_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no compaction is small enough, a larger one is made rather than none for ever."""
    monkeypatch.setattr(maintenance, "FAN_OUT", 4)
    monkeypatch.setattr(maintenance, "FILE_BYTES", 120_000)
    rng = np.random.default_rng(0)
    table = Table(store_in(tmp_path))
    for first in range(5):
        table.commit(letters(1, first, 100_000, rng))
    table.commit(letters(300, 5, 10, rng))
    upkeep, _ = kept(table, NEVER)
    upkeep.run(table.writer._dataset)
    assert len(bytes_of(table)) < 4
    assert len(table.rows) == 305


def test_worn_files_are_written_anew(tmp_path: Path) -> None:
    """A file most of whose rows have been replaced loses them, though there are few files."""
    rng = np.random.default_rng(0)
    table = Table(store_in(tmp_path))
    table.commit(random_batch(20, 0, rng))
    table.commit(replace(random_batch(10, 0, rng), start=20, end=30, offsets=list(range(20, 30))))
    before = table.rows
    assert sum(sizes(table)) > 30
    upkeep, clock = kept(table, NEVER)
    clock.now += maintenance.HOUSEKEEPING_S + 1
    upkeep.run(table.writer._dataset)
    assert sum(sizes(table)) == 21
    assert table.rows == before
    table.commit(outcomes([embedding("more")], 30))
    assert table.progress == {LANE.key: 31}


def test_versions_that_nobody_reads_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old versions go, beside the commits; the newest stays, and the writer goes on."""
    monkeypatch.setattr(maintenance, "KEEP_VERSIONS", timedelta(0))
    table = Table(store_in(tmp_path))
    for first in range(4):
        table.commit(outcomes([embedding(f"{first}")], first))
    upkeep, clock = kept(table, NEVER)
    clock.now += maintenance.CLEAN_EVERY_S + 1
    upkeep.run(table.writer._dataset)
    until(lambda: not indexing(upkeep))
    assert len(table.store.open().versions()) == 1
    table.commit(outcomes([embedding("more")], 4))
    assert len(table.rows) == 5


def test_few_files_are_left_alone(tmp_path: Path) -> None:
    """Nothing is compacted that needs no compaction."""
    table = Table(store_in(tmp_path))
    table.commit(outcomes([embedding("a")]))
    upkeep, clock = kept(table, NEVER)
    clock.now += 1000
    before = table.store.open().version
    upkeep.run(table.writer._dataset)
    assert table.store.open().version == before


def random_batch(rows: int, first: int, rng: np.random.Generator) -> OutcomeBatch:
    """Documents with random unit vectors."""
    vectors = rng.standard_normal((rows, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    made = [
        Row(
            Kind.UPSERT,
            f"{first + i}",
            0,
            "text",
            Fields(),
            Encoded(vectors[i : i + 1], ((0, 4),), (3,), 3, truncated=False),
        )
        for i in range(rows)
    ]
    return outcomes(made, first)


def indexing(upkeep: Maintenance) -> bool:
    """Whether the index is being worked on."""
    return upkeep._aside is not None and upkeep._aside.is_alive()


def indices(dataset: lance.LanceDataset) -> list[str]:
    """The names of the indices on the vector."""
    return [i.name for i in dataset.describe_indices() if i.field_names == ["vector"]]


def test_index_is_made_and_extended_beside_commits(tmp_path: Path) -> None:
    """From `index_rows` on there is an index; commits go on while it is made, and it takes them in.

    A search for a row's own vector finds that row first, before and after.
    """
    rng = np.random.default_rng(0)
    table = Table(store_in(tmp_path))
    table.commit(random_batch(900, 0, rng))
    upkeep, clock = kept(table, Upkeep(index_rows=1000, tombstone_retention_s=1e9))
    clock.now += maintenance.HOUSEKEEPING_S + 1
    upkeep.run(table.writer._dataset)
    assert not indexing(upkeep)
    assert indices(table.store.open()) == []
    table.commit(random_batch(200, 900, rng))
    clock.now += maintenance.HOUSEKEEPING_S + 1
    upkeep.run(table.writer._dataset)
    offset = 1100
    while indexing(upkeep) or offset < 1200:
        table.commit(random_batch(10, offset, rng))
        upkeep.run(table.writer._dataset)  # does nothing while the index is being made
        offset += 10
    assert len(indices(table.store.open())) == 1
    table.commit(random_batch(500, offset, rng))
    offset += 500
    clock.now += maintenance.HOUSEKEEPING_S + 1
    upkeep.run(table.writer._dataset)
    until(lambda: not indexing(upkeep), 30)
    dataset = table.store.open()
    [name] = indices(dataset)
    assert dataset.stats.index_stats(name)["num_unindexed_rows"] < 0.2 * offset
    assert dataset.count_rows() == offset + 1
    wanted = dataset.to_table(filter="id = '1300'").to_pylist()[0]["vector"]
    nearest = {"column": "vector", "q": np.array(wanted, np.float32), "k": 5, "nprobes": 64}
    found = dataset.to_table(nearest=nearest, filter="NOT deleted", prefilter=True)
    assert "1300" in found["id"].to_pylist()
    table.commit(random_batch(10, offset, rng))
    assert table.progress == {LANE.key: offset + 10}


def test_an_index_that_fails_does_not_stop_the_flow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Searches work without an index, so a failure is only logged, and tried again."""
    tried: list[int] = []

    def fail(_: object) -> None:
        tried.append(1)
        raise OSError("no space\nleft, rust/somewhere.rs:1")

    monkeypatch.setattr(maintenance, "index_vectors", fail)
    table = Table(store_in(tmp_path))
    table.commit(outcomes([embedding(f"{i}") for i in range(5)]))
    upkeep, clock = kept(table, Upkeep(index_rows=2, tombstone_retention_s=1e9))
    for round_ in range(2):
        clock.now += maintenance.HOUSEKEEPING_S + 1
        upkeep.run(table.writer._dataset)
        until(lambda: not indexing(upkeep))
        assert len(tried) == round_ + 1


def test_sweeps_old_leftovers_alone(tmp_path: Path) -> None:
    """Files that a killed writer left half-written go; those of one that may still write stay."""
    table = Table(store_in(tmp_path))
    table.commit(outcomes([embedding("a")]))
    data = Path(table.store.path, "data")
    old, young, other = data / ".tmp_old", data / ".tmp_young", data / "other"
    for file in (old, young, other):
        file.write_bytes(b"x")
    long_ago = time.time() - maintenance.ORPHAN_S - 60
    for file in (old, other):
        os.utime(file, (long_ago, long_ago))
    Table(store_in(tmp_path))
    assert not old.exists()
    assert young.exists()
    assert other.exists()
    assert live(table.store) == {("a", 0): "some text"}


def test_object_stores_are_not_swept() -> None:
    """Where there are no files of this machine, there is nothing to sweep."""
    store = store_in("s3://bucket/folder")
    assert not store.is_local
    assert store.path == "s3://bucket/folder/documents.lance"
    Maintenance(store, NEVER).sweep()
