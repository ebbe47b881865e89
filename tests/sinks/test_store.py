from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import lance
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.records import Lane
from sinks.errors import SinkError
from sinks.fence import Fence
from sinks.schema import CHUNK_COLUMNS
from tests.samples import LANE, embedding, encoded, outcomes, tombstone
from tests.sinks.tables import Table, rows_of, store_in

if TYPE_CHECKING:
    from sinks.store import TableStore


def refused(store: TableStore) -> str:
    """How a table is refused: one line."""
    with pytest.raises(SinkError) as told:
        store.ensure()
    assert "\n" not in str(told.value)
    return str(told.value)


def test_makes_the_table_once(tmp_path: Path) -> None:
    """The first start makes a table with its fence row; the next one leaves it as it is."""
    store = store_in(tmp_path / "deep" / "er", columns={"price": "float64"})
    assert not store.exists()
    store.ensure()
    assert store.exists()
    before = store.open()
    assert before.schema.equals(store.schema.arrow)
    assert before.count_rows() == 1
    assert store.fence(before) == Fence("some/model", "f1")
    store.ensure()
    assert store.open().version == before.version


def test_refuses_another_dimension(tmp_path: Path) -> None:
    """Vectors of another length are refused, both lengths named."""
    store_in(tmp_path).ensure()
    told = refused(store_in(tmp_path, dimension=16))
    assert told.startswith("model.name: some/model gives 16 dimensions")
    assert "has 8" in told


@pytest.mark.parametrize(
    "columns", [{}, {"price": "string"}, {"price": "float64", "extra": "bool"}]
)
def test_refuses_other_columns(tmp_path: Path, columns: dict[str, str]) -> None:
    """Missing, other and further metadata columns are refused, each named with both types."""
    store_in(tmp_path, columns={"price": "float64"}).ensure()
    told = refused(store_in(tmp_path, columns=columns))
    assert told.startswith("table.columns: ")
    unlike = "extra" if "extra" in columns else "price"
    assert f"{unlike} (" in told


def test_refuses_another_model(tmp_path: Path) -> None:
    """Vectors of another model are refused with both fingerprints and the way out."""
    store_in(tmp_path).ensure()
    told = refused(store_in(tmp_path, fingerprint="f2"))
    assert told.startswith("model.name: ")
    assert "f1" in told
    assert "f2" in told
    assert "table.name" in told


def test_refuses_a_table_without_fence_row(tmp_path: Path) -> None:
    """A table that something else wrote has no fence row and is left alone."""
    store = store_in(tmp_path)
    store.ensure()
    store.open().delete("id IS NULL")
    assert "has 0 fence rows" in refused(store)


def test_refuses_a_foreign_table(tmp_path: Path) -> None:
    """A table of that name without a vector column is refused by name."""
    store = store_in(tmp_path)
    lance.write_dataset(store.schema.arrow.empty_table().select(["id"]), store.path)
    assert refused(store).startswith("table.name: documents: its column vector is None")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_refuses_a_folder_without_rights(tmp_path: Path) -> None:
    """A folder that can't be written is named at the start, not at the first commit."""
    tmp_path.chmod(0o500)
    assert refused(store_in(tmp_path)).startswith("table.uri: ")


def test_refuses_a_folder_that_is_a_file(tmp_path: Path) -> None:
    """So is one that is no folder."""
    (tmp_path / "file").write_text("")
    assert refused(store_in(tmp_path / "file")).startswith(f"table.uri: {tmp_path}/file: ")


def test_open_names_the_missing_table(tmp_path: Path) -> None:
    """A table that is gone is named in one line."""
    with pytest.raises(SinkError, match=r"^table\.name: documents: can't open it in"):
        store_in(tmp_path).open()


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    """A table whose files are gone is told in one line, by whoever reads it."""
    table = Table(store_in(tmp_path))
    table.commit(outcomes([embedding("a")]))
    for file in Path(table.store.path).glob("data/*.lance"):
        file.unlink()
    with pytest.raises(SinkError, match=r"^table\."):
        table.store.lookup(["a"])
    with pytest.raises(SinkError, match=r"^table\."):
        table.store.progress([LANE.key])


def test_progress_of_the_lanes_asked_for(tmp_path: Path) -> None:
    """Only lanes that the table knows have progress."""
    table = Table(store_in(tmp_path))
    table.commit(outcomes([tombstone("a")], 4))
    other = Lane("documents", 1)
    assert table.store.progress([LANE.key, other.key]) == {LANE.key: 5}
    table.commit(outcomes([], 7, lane=other, end=9))
    assert table.store.progress([LANE.key, other.key]) == {LANE.key: 5, other.key: 9}


ODD_IDS = ["'", "''", '"', "\\", "\\'", "a\nb", "%", "ü", "日本", "a'; --", "\x00", "\x7f", " "]


def test_lookup_finds_any_id(tmp_path: Path) -> None:
    """Ids with quotes, signs of SQL and any Unicode are found, each with its own row."""
    table = Table(store_in(tmp_path))
    table.commit(outcomes([embedding(identity, f"text of {identity}") for identity in ODD_IDS]))
    found = table.store.lookup([*ODD_IDS, "absent"])
    assert {identity: row.text for identity, row in found.items()} == {
        identity: f"text of {identity}" for identity in ODD_IDS
    }


@settings(max_examples=15)
@given(ids=st.sets(st.text(min_size=1, max_size=5), min_size=1, max_size=20))
def test_lookup_of_random_ids(tmp_path_factory: pytest.TempPathFactory, ids: set[str]) -> None:
    """Whatever the ids are, exactly those that were asked for come back."""
    table = Table(store_in(tmp_path_factory.mktemp("table")))
    table.commit(outcomes([embedding(identity) for identity in sorted(ids)]))
    asked = set(sorted(ids)[::2])
    assert set(table.store.lookup(asked)) == asked


def test_lookup_gives_the_same_bits(tmp_path: Path) -> None:
    """Text, vector and counts come back as the model made them, so a patch changes none."""
    table = Table(store_in(tmp_path))
    table.commit(outcomes([embedding("a", "Ünï", 1)]))
    row = table.store.lookup(["a"])["a"]
    made = encoded("Ünï")
    assert row.text == "Ünï"
    assert row.encoded is not None
    assert row.encoded.vectors.tobytes() == made.vectors.tobytes()
    assert row.encoded.vectors.dtype == np.float32
    assert (row.encoded.spans, row.encoded.tokens) == (made.spans, made.tokens)
    assert row.encoded.chunk_tokens == made.chunk_tokens


def test_lookup_leaves_out_what_is_deleted(tmp_path: Path) -> None:
    """A deleted document has no row to change."""
    table = Table(store_in(tmp_path))
    table.commit(outcomes([embedding("a"), embedding("b")]))
    table.commit(outcomes([tombstone("a")], 2))
    assert set(table.store.lookup(["a", "b"])) == {"b"}


def test_lookup_of_several_chunks(tmp_path: Path) -> None:
    """A document's rows give back its whole encoding, with the hashes that it had."""
    table = Table(store_in(tmp_path), max_chunks=3)
    long, short = embedding("a", "abcdef", 3), embedding("b")
    assert long.encoded is not None
    hashed = long.encoded._replace(hashes=(b"0" * 16, b"1" * 16, b"2" * 16))
    table.commit(outcomes([replace(long, encoded=hashed), short]))
    found = table.store.lookup(["a", "b", "c"])
    assert {name: row.text for name, row in found.items()} == {"a": "abcdef", "b": "some text"}
    for name, wanted in (("a", hashed), ("b", short.encoded)):
        one = found[name].encoded
        assert one is not None
        assert wanted is not None
        np.testing.assert_array_equal(one.vectors, wanted.vectors)
        assert one[1:] == wanted[1:]
    vectors = table.store.vectors(["a", "b", "c"])
    assert list(vectors) == list(hashed.hashes)
    np.testing.assert_array_equal(np.stack(list(vectors.values())), hashed.vectors)


def test_a_table_of_an_older_release_gets_its_columns(tmp_path: Path) -> None:
    """A start brings it up, and its rows stay; a look changes nothing and tells of it."""
    table = Table(store_in(tmp_path), max_chunks=3)
    table.commit(outcomes([embedding("a", "abcdef", 3), embedding("b")]))
    names = [field.name for field in CHUNK_COLUMNS]
    before = table.rows
    lance.dataset(table.store.path).drop_columns(names)
    version = table.store.open().version
    assert "older release" in table.store.look()
    with pytest.raises(SinkError, match="start the flow of this one once"):
        table.store.check(table.store.open())
    assert table.store.open().version == version
    table.store.ensure()
    assert table.store.look() == ""
    assert sorted(table.store.open().schema.names) == sorted(table.store.schema.arrow.names)
    emptied = dict.fromkeys(names)
    assert rows_of(table.store) == [{**row, **emptied} for row in before]
    found = table.store.lookup(["a", "b"])
    assert found["a"].encoded is None
    assert found["b"].encoded is not None
    again = Table(table.store, max_chunks=3)
    again.commit(outcomes([embedding("a", "abcdef", 3)], 5))
    assert [row["chunk_end"] for row in rows_of(table.store)] == [2, 4, 6, None]


def test_a_table_is_gone_only_where_its_place_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a proxy before an object store says of a page is nothing about a table."""
    store = store_in(tmp_path)
    assert store.is_gone()
    store.ensure()
    assert not store.is_gone()

    def away(*_: object) -> None:
        raise OSError("LanceError(IO): Generic S3 error: 404 page not found")

    monkeypatch.setattr(lance, "dataset", away)
    with pytest.raises(SinkError, match=r"can't read table documents: .*404 page not found"):
        store.is_gone()
