from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.encoding import Prefixed
from operators.records import Lane
from sinks.errors import SinkError
from sinks.seed import Seeding, Snapshot, release, snapshot
from sinks.writer import TableWriter
from tests.samples import LANE, Fields, embedding, encoded, outcomes, tombstone
from tests.sinks.tables import NEVER, Table, rows_of, store_in

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from operators.encoding import Encoded, Input
    from operators.records import OutcomeBatch
    from sinks.store import TableStore

TAG = "headrace-test"
COLUMNS = {"price": "float64"}
OTHER = Lane("documents", 1)


class EndedError(Exception):
    """Stands for a kill."""


class Killed:
    """A table's writer that is killed before one of its commits."""

    def __init__(self, writer: TableWriter, after: int) -> None:
        self._writer = writer
        self._left = after
        self.fence = writer.fence

    def commit(self, *given: Any, **named: Any) -> None:
        """Commit, or be killed."""
        if not self._left:
            raise EndedError
        self._left -= 1
        self._writer.commit(*given, **named)

    def keep_up(self) -> None:
        """Nothing."""


def encode(texts: Sequence[Input]) -> list[Encoded]:
    """The new model: other vectors of the same texts."""
    return [encoded(f"new {text}") for text in texts]


def batches(chunks: int = 1) -> list[OutcomeBatch]:
    """Documents of two lanes, some deleted, some with metadata."""
    first = [
        embedding(f"a{n}", f"text {n}", chunks, metadata=Fields("{}", '{"k": 1}', {"price": n / 2}))
        for n in range(9)
    ]
    second = [*(embedding(f"b{n}", f"other {n}", time_ms=n) for n in range(6)), tombstone("b3", 9)]
    return [outcomes([*first, tombstone("a4")], lane=LANE), outcomes(second, lane=OTHER)]


def made_anew(folder: Path) -> list[dict[str, Any]]:
    """The rows that the same records make with the new model."""
    table = Table(store_in(folder, columns=COLUMNS))
    for batch in batches():
        vectors = [None if t is None else encode([t])[0] for t in batch.texts]
        object.__setattr__(batch, "encoded", vectors)
        table.commit(batch)
    return plain(table.store)


def plain(store: TableStore) -> list[dict[str, Any]]:
    """A table's rows, without when they were embedded."""
    return [{k: v for k, v in row.items() if k != "embedded_at"} for row in rows_of(store)]


def seeding(
    store: TableStore, kept: Snapshot, rows: int, after: int | None = None
) -> tuple[Seeding, TableWriter]:
    """A seeding by a writer of its own, which is killed before a commit if that is said."""
    store.ensure(to_seed=True)
    writer = TableWriter(store, NEVER, 1)
    used = writer if after is None else Killed(writer, after)
    return Seeding(kept, used, store.schema, "documents", encode, rows), writer


@pytest.fixture
def old(tmp_path: Path) -> Table:
    """A table with documents of the old model."""
    table = Table(store_in(tmp_path / "old", columns=COLUMNS))
    table.commit(*batches())
    return table


@settings(max_examples=12)
@given(rows=st.integers(1, 20), kills=st.lists(st.integers(0, 4), max_size=4))
def test_any_kills_give_the_table_made_anew(
    tmp_path_factory: pytest.TempPathFactory, rows: int, kills: list[int]
) -> None:
    """Whenever a seeding is killed, the next goes on behind it, up to the table of a replay."""
    folder = tmp_path_factory.mktemp("seed")
    old = Table(store_in(folder / "old", columns=COLUMNS))
    old.commit(*batches())
    kept = Snapshot.of(old.store, snapshot(old.store, TAG))
    new = store_in(folder / "new", columns=COLUMNS, fingerprint="f2")
    done = 0
    for after in [*kills, None]:
        work, writer = seeding(new, kept, rows, after)
        assert (writer.fence.seeded is None) or writer.fence.seeded >= done
        try:
            for seen in work.run():
                done = seen
                assert new.fence(new.open()).progress == {}
        except EndedError:
            continue
    fence = new.fence(new.open())
    assert fence.seeded is None
    assert fence.progress == old.writer.fence.progress
    assert plain(new) == made_anew(folder / "anew")


def test_what_comes_later_is_left_to_the_flow(old: Table, tmp_path: Path) -> None:
    """Rows and progress are those of the snapshot, whatever is written and removed meanwhile."""
    kept = Snapshot.of(old.store, snapshot(old.store, TAG))
    expected = old.writer.fence.progress
    for number in range(10, 30):
        old.commit(outcomes([embedding(f"a{number % 9}", "later")], number))
    dataset = old.store.open()
    dataset.optimize.compact_files()
    dataset.cleanup_old_versions(older_than=timedelta(0), error_if_tagged_old_versions=False)
    new = store_in(tmp_path / "new", columns=COLUMNS, fingerprint="f2")
    list(seeding(new, kept, 4)[0].run())
    assert new.fence(new.open()).progress == expected
    assert plain(new) == made_anew(tmp_path / "anew")


def test_a_version_that_was_let_go(old: Table) -> None:
    """A version is there while its tag is, and what reads it without says what to do."""
    version = snapshot(old.store, TAG)
    assert snapshot(old.store, TAG) == version
    release(old.store, TAG)
    release(old.store, TAG)
    old.commit(outcomes([embedding("z")], 50))
    old.store.open().cleanup_old_versions(older_than=timedelta(0))
    with pytest.raises(SinkError, match="--abandon"):
        Snapshot.of(old.store, version)


def test_no_flow_begins_with_half_a_table(old: Table, tmp_path: Path) -> None:
    """A flow that is started on a table which is still seeded is refused."""
    kept = Snapshot.of(old.store, snapshot(old.store, TAG))
    new = store_in(tmp_path / "new", columns=COLUMNS, fingerprint="f2")
    with pytest.raises(EndedError):
        list(seeding(new, kept, 4, after=2)[0].run())
    with pytest.raises(SinkError, match="headrace migrate"):
        new.ensure()
    list(seeding(new, kept, 4)[0].run())
    new.ensure()


def test_chunks_are_the_new_model_s(tmp_path: Path) -> None:
    """A document of several chunks is taken once, with its whole text, and cut anew."""
    old = Table(store_in(tmp_path / "old", columns=COLUMNS), max_chunks=3)
    old.commit(*batches(chunks=3))
    kept = Snapshot.of(old.store, snapshot(old.store, TAG))
    new = store_in(tmp_path / "new", columns=COLUMNS, fingerprint="f2")
    list(seeding(new, kept, 5)[0].run())
    assert plain(new) == made_anew(tmp_path / "anew")


def test_a_vector_that_is_not_finite(old: Table, tmp_path: Path) -> None:
    """A document that the new model can't embed is left out by name, as a replay would."""
    kept = Snapshot.of(old.store, snapshot(old.store, TAG))
    new = store_in(tmp_path / "new", columns=COLUMNS, fingerprint="f2")
    new.ensure(to_seed=True)

    def bad(texts: Sequence[Input]) -> list[Encoded]:
        made = encode(texts)
        return [
            one._replace(vectors=np.full_like(one.vectors, np.nan)) if text == "text 2" else one
            for text, one in zip(texts, made, strict=True)
        ]

    writer = TableWriter(new, NEVER, 1)
    work = Seeding(kept, writer, new.schema, "documents", bad, 4)
    list(work.run())
    assert work.left_out == ["a2"]
    assert {row["id"] for row in rows_of(new)} == {row["id"] for row in rows_of(old.store)} - {"a2"}


@pytest.mark.parametrize("columns", [{}, {"title": "string"}])
def test_prefixes_are_taken_along(tmp_path: Path, columns: dict[str, str]) -> None:
    """A document is embedded with the field that is put before its chunks, column or not."""
    old = Table(store_in(tmp_path / "old", columns=columns))
    rest = "{}" if columns else '{"title":"T"}'
    fields = Fields('{"title":"T"}', rest, {"title": "T"} if columns else {})
    old.commit(outcomes([embedding("a", "one", metadata=fields), embedding("b", "two")]))
    told: list[Input] = []

    def listening(texts: Sequence[Input]) -> list[Encoded]:
        told.extend(texts)
        return encode(texts)

    new = store_in(tmp_path / "new", columns=columns)
    new.ensure(to_seed=True)
    kept = Snapshot.of(old.store, snapshot(old.store, TAG))
    writer = TableWriter(new, NEVER, 1)
    list(Seeding(kept, writer, new.schema, "documents", listening, 9, "title").run())
    assert told == [Prefixed("T", "one"), Prefixed("", "two")]
