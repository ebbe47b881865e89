"""The table searched: what is found, in which order, and what never is."""

from __future__ import annotations

import shutil
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sinks import maintenance
from sinks.errors import FilterError, SinkError
from sinks.maintenance import Maintenance, Upkeep
from sinks.search import FoundChunk, NoTextIndexError, Query, TableReader, check_model, find
from tests.samples import LANE, Fields, embedding, encoded, outcomes, tombstone, until
from tests.sinks.tables import NEVER, Table, store_in

if TYPE_CHECKING:
    from pathlib import Path

    from sinks.search import Mode

TEXTS = {
    "bread": "baking bread with flour and yeast",
    "cake": "a chocolate cake with flour",
    "ship": "the ship left the harbour",
    "star": "a telescope shows the stars",
}
COLUMNS = {"price": "float64"}
PIECES = (
    *("id", "price", "text", "deleted", "tokens", "(", ")", "=", ">", "NOT", "AND", "OR", "IS"),
    *("'gone'", "1", "true", "NULL", ") OR (", "--", "0 = 0", "1 = 1"),
)
MODES: list[Mode] = ["vector", "text", "hybrid"]


def indexed(table: Table) -> None:
    """Let the table's texts be indexed, as its writer does at its first commit."""
    upkeep = Maintenance(table.store, Upkeep(1 << 40, 1e9, text_index=True))
    upkeep.run(table.writer._dataset)
    until(lambda: upkeep._aside is None or not upkeep._aside.is_alive())


def made(folder: Path) -> Table:
    """A table with `TEXTS`, two deleted documents, and a text index."""
    table = Table(store_in(folder, columns=COLUMNS))
    rows = [
        embedding(name, text, metadata=Fields("{}", '{"kind": "x"}', {"price": float(number)}))
        for number, (name, text) in enumerate(TEXTS.items())
    ]
    gone = [embedding("gone", "flour that is gone"), embedding("late", "flour that goes later")]
    table.commit(outcomes([*rows, *gone, tombstone("gone")]))
    indexed(table)
    table.commit(outcomes([tombstone("late")], len(rows) + 3))
    return table


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """One for all tests that only read."""
    return made(tmp_path_factory.mktemp("search"))


def found(table: Table, query: Query) -> list[str]:
    """The ids that a query finds, best first."""
    return [item.id for item in find(table.store.open(), query, table.store.schema.columns)]


def asking(text: str, mode: Mode = "vector", **more: object) -> Query:
    """A query by the words of a text."""
    vector = encoded(text).vectors[0]
    return Query(**{"k": 10, "text": text, "vector": vector, "mode": mode, **more})


@pytest.mark.parametrize("mode", MODES)
def test_modes(table: Table, mode: Mode) -> None:
    """A document's own words find it first, with its metadata whole, in each mode."""
    for name, text in TEXTS.items():
        best = find(table.store.open(), asking(text, mode), COLUMNS)
        assert best[0].id == name
        assert best[0].text == text
        assert best[0].metadata == {"kind": "x", "price": float(list(TEXTS).index(name))}
        scores = [item.score for item in best]
        assert scores == sorted(scores, reverse=True)


def test_words(table: Table) -> None:
    """By words those documents are found that have one of them, also in another form."""
    assert set(found(table, asking("flour", "text"))) == {"bread", "cake"}
    assert found(table, asking("telescopes", "text")) == ["star"]
    assert found(table, asking("xylophone", "text")) == []
    assert found(table, asking('AND ( " * -', "text")) == []


def test_both(table: Table) -> None:
    """By both, what either finds is found, and what both find comes first."""
    query = asking("flour", "hybrid", vector=encoded(TEXTS["cake"]).vectors[0])
    ids = found(table, query)
    assert ids[0] == "cake"
    assert set(ids) == set(TEXTS)


@pytest.mark.parametrize("mode", MODES)
def test_deleted_rows_never_show(table: Table, mode: Mode) -> None:
    """Neither deleted documents nor the fence row are found, whatever the condition."""
    for where in (None, "price >= 0 OR price IS NULL", "id IS NULL OR id = 'gone'", "true"):
        ids = found(table, asking("flour that is gone", mode, where=where, k=100))
        assert set(ids) <= set(TEXTS)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(where=st.text(max_size=30) | st.lists(st.sampled_from(PIECES), max_size=8).map(" ".join))
@example("1 = 1) OR (deleted")
@example("1 = 1 OR 1 = 1")
@example("true) OR deleted --")
@example("true OR deleted")
@example("id = 'gone' OR id IS NULL")
@example("text < embedded_at")
def test_no_condition_shows_them(table: Table, where: str) -> None:
    """A condition is refused as such, or finds documents that are there; nothing else happens."""
    try:
        ids = found(table, asking("flour", where=where, k=100))
    except FilterError:
        ids = []
    assert set(ids) <= set(TEXTS)


@pytest.mark.parametrize("mode", MODES)
def test_conditions(table: Table, mode: Mode) -> None:
    """A condition is met by all that is found, and found for all that meet it."""
    assert set(found(table, asking("flour", mode, where="price < 2"))) == {"bread", "cake"}
    assert found(table, asking("flour", mode, where="price > 100")) == []


@pytest.mark.parametrize("where", ["price = 'x'", "price", "key = X'00'", "vector IS NULL"])
def test_wrong_conditions(table: Table, where: str) -> None:
    """A condition that does not fit the columns is told as such."""
    with pytest.raises(FilterError):
        found(table, asking("flour", where=where))


@pytest.mark.parametrize("mode", MODES)
def test_pages(table: Table, mode: Mode) -> None:
    """Pages follow each other without a gap or an overlap, and end."""
    whole = found(table, asking("flour", mode))
    pages = [found(table, asking("flour", mode, k=1, offset=i)) for i in range(len(whole) + 1)]
    assert [page for page in pages if page] == [[name] for name in whole]
    assert pages[-1] == []


def test_chunks(tmp_path: Path) -> None:
    """A document of many chunks is found once, in each mode, and does not push others out."""
    table = Table(store_in(tmp_path), max_chunks=40)
    long = " ".join(["flour"] * 200)
    table.commit(outcomes([embedding("long", long, chunks=40), embedding("short", "flour")]))
    indexed(table)
    for mode in MODES:
        assert sorted(found(table, asking("flour", mode, k=2))) == ["long", "short"]


def test_the_best_chunk_is_told(tmp_path: Path) -> None:
    """A document comes with its whole text, and its best chunk with its range of characters."""
    table = Table(store_in(tmp_path), max_chunks=3)
    words = "flour in bowl; yeast is old.; oven too hot;"
    long, other = embedding("long", words, 3), embedding("other", "a ship")
    table.commit(outcomes([long, other]))
    indexed(table)
    dataset = table.store.open()
    assert long.encoded is not None
    for number, (start, end) in enumerate(long.encoded.spans):
        wanted = FoundChunk(number, start, end, words[start:end])
        near = Query(2, vector=long.encoded.vectors[number])
        for query in (near, Query(2, mode="text", text=words[start:end])):
            item = find(dataset, query, ())[0]
            assert (item.id, item.text, item.chunk) == ("long", words, wanted)
    dataset.drop_columns(["chunk_start", "chunk_end", "chunk_hash"])
    item = find(table.store.open(), Query(1, vector=long.encoded.vectors[1]), ())[0]
    start, end = long.encoded.spans[1]
    assert (item.text, item.chunk) == (words, FoundChunk(1, None, None, words[start:end]))


def test_no_text_index(tmp_path: Path) -> None:
    """Without a text index a search by words says so, and one by vectors works."""
    table = Table(store_in(tmp_path))
    table.commit(outcomes([embedding("a", "flour")]))
    with pytest.raises(NoTextIndexError, match="text_index"):
        found(table, asking("flour", "text"))
    with pytest.raises(NoTextIndexError):
        found(table, asking("flour", "hybrid"))
    assert found(table, asking("flour")) == ["a"]


def test_reader_sees_each_commit(tmp_path: Path) -> None:
    """A reader gives the newest version, with its fence, also when old versions are removed."""
    table = Table(store_in(tmp_path))
    reader = TableReader(table.store)
    for number in range(5):
        table.commit(outcomes([embedding(f"{number}", "flour")], number))
        assert reader.latest().count_rows("NOT deleted") == number + 1
        assert reader.fence().progress == {LANE.key: number + 1}
        table.store.open().cleanup_old_versions(older_than=timedelta(0))
    assert reader.latest() is reader.latest()


def test_reader_without_a_table(tmp_path: Path) -> None:
    """A reader of a table that is not there says so, and sees it once it is made."""
    store = store_in(tmp_path)
    reader = TableReader(store)
    with pytest.raises(SinkError, match=r"table\.name: documents"):
        reader.latest()
    store.ensure()
    assert reader.latest().count_rows() == 1


def test_reader_of_another_table_of_as_many_versions(tmp_path: Path) -> None:
    """Where nothing but its files tells that a table is another, its documents are found."""
    old, new = (Table(store_in(tmp_path / name)) for name in ("old", "new"))
    for table, name in ((old, "old"), (new, "new")):
        table.commit(outcomes([embedding(name, "flour")]))
    reader = TableReader(old.store)
    assert [item.id for item in reader.find(asking("flour"), ())] == ["old"]
    assert old.store.open().version == new.store.open().version
    shutil.rmtree(old.store.path)
    shutil.copytree(new.store.path, old.store.path)
    assert [item.id for item in reader.find(asking("flour"), ())] == ["new"]
    with pytest.raises(FilterError):
        reader.find(asking("flour", where="no_such = 1"), ())
    shutil.rmtree(old.store.path)
    with pytest.raises(SinkError, match=r"table\.name: documents: can't open it"):
        reader.find(asking("flour"), ())


def test_other_model(table: Table) -> None:
    """Vectors of another model are refused, with both named."""
    fence = TableReader(table.store).fence()
    check_model(fence, "documents", "some/model", "f1")
    with pytest.raises(SinkError, match=r"other/model has fingerprint f2.*some/model \(f1\)"):
        check_model(fence, "documents", "other/model", "f2")


def test_new_rows_are_found(table: Table, tmp_path: Path) -> None:
    """What was committed after the text index was made is found by words at once."""
    own = made(tmp_path)
    own.commit(outcomes([embedding("new", "a xylophone")], 20))
    assert found(own, asking("xylophone", "text")) == ["new"]
    own.commit(outcomes([embedding("bread", "no longer of that")], 21))
    assert found(own, asking("yeast", "text")) == []
    assert found(table, asking("yeast", "text")) == ["bread"]


def test_text_index_is_made_once(tmp_path: Path) -> None:
    """The writer makes the text index with its first commit, and takes new rows in."""
    table = Table(store_in(tmp_path))
    table.commit(outcomes([embedding(f"{i}", f"flour {i}") for i in range(20)]))
    clock = [0.0]
    upkeep = Maintenance(table.store, Upkeep(1 << 40, 1e9, text_index=True), lambda: clock[0])

    def run() -> None:
        upkeep.run(table.writer._dataset)
        until(lambda: upkeep._aside is None or not upkeep._aside.is_alive())

    run()
    version = table.store.open().version
    run()
    assert table.store.open().version == version
    [index] = table.store.open().describe_indices()
    assert index.field_names == ["text"]
    table.commit(outcomes([embedding(f"new {i}", f"flour {i}") for i in range(20)], 20))
    clock[0] += maintenance.HOUSEKEEPING_S + 1
    run()
    assert table.store.open().stats.index_stats(index.name)["num_unindexed_rows"] <= 1
    assert len(found(table, asking("flour", "text", k=100))) == 40


def test_no_text_index_is_made(tmp_path: Path) -> None:
    """Unless it is wanted, there is none."""
    table = Table(store_in(tmp_path))
    table.commit(outcomes([embedding("a", "flour")]))
    Maintenance(table.store, NEVER).run(table.writer._dataset)
    assert not table.store.open().describe_indices()
