"""Several tables are, together, what replaying the source in order gives, whatever is cut off."""

from __future__ import annotations

import pickle
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.records import Lane, OutcomeBatch
from operators.routing import TABLE
from sinks.errors import SinkError, WriterLostError
from sinks.maintenance import Upkeep
from sinks.router import RoutedWriter
from sinks.rows import table_rows
from sinks.store import TableStore
from sinks.writer import TableWriter
from tests.samples import (
    LANE,
    Fields,
    Row,
    dead_letter,
    embedding,
    encoded,
    outcomes,
    tombstone,
    until,
)
from tests.sinks.tables import NEVER, live, routed_in, rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from sinks.routed import RoutedStore

OTHER = Lane("documents", 1)
TOPIC = Lane("more documents", 0)


def document(identity: str, table: str, text: str = "some text", **fields: Any) -> Row:
    """A document of a table."""
    return embedding(identity, text, metadata=Fields(typed={TABLE: table}), **fields)


def commit(writer: RoutedWriter, store: RoutedStore, *batches: OutcomeBatch) -> None:
    """Commit batches together."""
    progress = {batch.lane.key: batch.end for batch in batches}
    writer.commit(store.schema.rows(table_rows(batches)), progress)


def opened(store: RoutedStore, upkeep: Upkeep = NEVER, max_chunks: int = 1) -> RoutedWriter:
    """A new writer of the tables."""
    store.ensure()
    return RoutedWriter(store, upkeep, max_chunks)


def held(store: RoutedStore) -> dict[str, dict[str, str]]:
    """What readers of each table see: the texts of its documents."""
    return {
        name: {identity: text for (identity, chunk), text in live(own).items() if not chunk}
        for name in sorted(store.tables())
        if (own := store.table(name)).exists()
    }


def without_empty(tables: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Those tables that have documents."""
    return {name: own for name, own in tables.items() if own}


class Cut(Exception):  # noqa: N818 - no error of anybody
    """The writer was killed."""


class Scissors:
    """Cuts a writer off at one of its commits to a table, before it or right after it.

    Args:
        at: At which.
        after: Whether the commit is still done.
    """

    def __init__(self, patch: pytest.MonkeyPatch, at: int, *, after: bool) -> None:
        self._patch = patch
        self._at = at
        self._after = after
        self._merge = TableWriter._try_merge

    def __enter__(self) -> Self:
        scissors = self

        def merge(writer: TableWriter, *arguments: Any) -> bool:
            scissors._at -= 1
            if scissors._at < 0:
                raise Cut  # others at the same time are cut off, too
            done = scissors._merge(writer, *arguments)
            if scissors._after and not scissors._at:
                raise Cut
            return done

        self._patch.setattr(TableWriter, "_try_merge", merge)
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.setattr(TableWriter, "_try_merge", self._merge)


def test_each_table_has_its_documents(tmp_path: Path) -> None:
    """Documents go to the tables that they name; the directory has each of them, and progress."""
    store = routed_in(tmp_path)
    writer = opened(store)
    rows = [document("a", "docs_x", "1"), document("b", "docs_y", "2"), document("c", "docs_x")]
    commit(writer, store, outcomes(rows))
    assert held(store) == {"docs_x": {"a": "1", "c": "some text"}, "docs_y": {"b": "2"}}
    assert store.progress([LANE.key]) == {LANE.key: 3}
    directory = store.directory.open().to_table(["id", "table"], filter="NOT deleted")
    assert set(map(tuple, (row.values() for row in directory.to_pylist()))) == {
        ("a", "docs_x"),
        ("b", "docs_y"),
        ("c", "docs_x"),
    }
    assert writer.rows == 3 + 2  # and two fence rows


def test_a_deletion_finds_its_table(tmp_path: Path) -> None:
    """A deletion, which names no table, empties the row in the table where its document is."""
    store = routed_in(tmp_path)
    writer = opened(store)
    commit(writer, store, outcomes([document("a", "docs_x"), document("b", "docs_y")]))
    commit(writer, store, outcomes([tombstone("a"), tombstone("never there")], 2))
    assert held(store) == {"docs_x": {}, "docs_y": {"b": "some text"}}
    [row] = rows_of(store.table("docs_x"))
    assert (row["deleted"], row["vector"], row["source_offset"]) == (True, None, 2)
    assert len(rows_of(store.table("docs_y"))) == 1


def test_a_document_moves(tmp_path: Path) -> None:
    """A document that names another table is in that one alone, with all its chunks."""
    store = routed_in(tmp_path)
    writer = opened(store, max_chunks=3)
    commit(writer, store, outcomes([document("a", "docs_x", "abcdef", chunks=3)]))
    commit(writer, store, outcomes([document("a", "docs_y", "abcdef", chunks=2)], 1))
    assert live(store.table("docs_x")) == {}
    assert live(store.table("docs_y")) == {("a", 0): "abcdef", ("a", 1): "def"}
    commit(writer, store, outcomes([tombstone("a")], 2))
    assert live(store.table("docs_y")) == {}


def test_a_lost_write_moves_nothing(tmp_path: Path) -> None:
    """Across lanes the later timestamp says where a document is."""
    store = routed_in(tmp_path)
    writer = opened(store)
    commit(writer, store, outcomes([document("a", "docs_x", "late", time_ms=9)]))
    early = outcomes([document("a", "docs_y", "early", time_ms=3)], lane=OTHER)
    commit(writer, store, early)
    assert without_empty(held(store)) == {"docs_x": {"a": "late"}}
    commit(writer, store, outcomes([tombstone("a", 4)], 1, lane=OTHER))
    assert without_empty(held(store)) == {"docs_x": {"a": "late"}}


class Change(NamedTuple):
    """A record: of a document, for a table or, if that is None, its deletion.

    A patch has no text: it moves the document with that of the row before.
    """

    name: str
    table: str | None
    lane: int
    patch: bool


CHANGES = st.lists(
    st.builds(
        Change,
        st.sampled_from("ab"),
        st.sampled_from(["docs_x", "docs_y", "docs_z", None]),
        st.integers(0, 1),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


@dataclass
class Stream:
    """Two lanes of records, whose times are in the order of the changes.

    Attributes:
        store: The tables.
        changes: The records.
        apart: Whether each lane has documents of its own. Only then are there patches: what one
            finds of a document that another lane changes depends on which comes first.
    """

    store: RoutedStore
    changes: list[Change]
    apart: bool

    def __post_init__(self) -> None:
        self.lanes = [LANE, TOPIC if self.store.schema.several_topics else OTHER]
        self.records: list[list[tuple[int, Change]]] = [[], []]
        for when, change in enumerate(self.changes):
            self.records[change.lane].append((when, change))

    @property
    def ends(self) -> dict[str, int]:
        """The progress of all of it."""
        lanes = zip(self.lanes, self.records, strict=True)
        return {lane.key: len(own) for lane, own in lanes if own}

    @property
    def progress(self) -> list[int]:
        """How far the tables are in each lane."""
        known = self.store.progress([lane.key for lane in self.lanes])
        return [known.get(lane.key, 0) for lane in self.lanes]

    def id_of(self, change: Change) -> str:
        """The document's id."""
        return f"{change.name}{change.lane}" if self.apart else change.name

    def replayed(self) -> dict[str, dict[tuple[str, int], str]]:
        """What replaying in the order of time leaves in each table: the text of each chunk."""
        where: dict[str, tuple[str, str]] = {}
        for when, change in enumerate(self.changes):
            identity = self.id_of(change)
            before = where.pop(identity, None)
            text = words(when)
            if change.patch and self.apart:
                text = before[1] if before else ""
            if change.table is not None and text:
                where[identity] = change.table, text
        tables: dict[str, dict[tuple[str, int], str]] = {}
        for identity, (table, text) in where.items():
            tables.setdefault(table, {}).update(chunks_of(identity, text))
        return tables

    def bring_on(self, data: st.DataObject, upto: list[int] | None = None) -> None:
        """Commit what the tables lack, in pieces; a patch is made of what is found then."""
        writer = opened(self.store, max_chunks=3)
        done, ends = self.progress, upto or [len(own) for own in self.records]
        seen: dict[str, str | None] = {}
        while any(first < end for first, end in zip(done, ends, strict=True)):
            pieces: list[OutcomeBatch] = []
            for lane, end in enumerate(ends):
                last = end - data.draw(st.integers(0, max(0, end - done[lane])))
                if last > done[lane]:
                    rows = [self._row(*one, seen) for one in self.records[lane][done[lane] : last]]
                    pieces.append(outcomes(rows, done[lane], lane=self.lanes[lane]))
                    done[lane] = last
            if pieces:
                commit(writer, self.store, *pieces)

    def _row(self, when: int, change: Change, seen: dict[str, str | None]) -> Row:
        identity, text = self.id_of(change), words(when)
        if change.table is None:
            seen[identity] = None
            return tombstone(identity, when)
        if change.patch and self.apart:
            if identity not in seen:
                found = self.store.lookup([identity]).get(identity)
                seen[identity] = None if found is None else found.text
            before = seen[identity]
            if before is None:
                return dead_letter("no_text")
            text = before
        seen[identity] = text
        return document(identity, change.table, text, chunks=len(text.split()), time_ms=when)

    def check_kept(self) -> None:
        """See that each document can be looked up, but for those that are deleted at some time."""
        gone = {self.id_of(change) for change in self.changes if change.table is None}
        kept = {
            self.id_of(change)
            for own, done in zip(self.records, self.progress, strict=True)
            for _, change in own[:done]
            if not (change.patch and self.apart)
        }
        assert kept - gone <= self.store.lookup(kept).keys()

    def check(self) -> None:
        """See that the tables are as replayed, each document with all its chunks in one of them."""
        found = {name: live(self.store.table(name)) for name in self.store.tables()}
        assert {name: own for name, own in found.items() if own} == self.replayed()


def words(when: int) -> str:
    """A text of one to three words, each a chunk."""
    return " ".join([f"{when:04d}"] * (1 + when % 3))


def chunks_of(identity: str, text: str) -> dict[tuple[str, int], str]:
    """The rows of a document: the first has the whole text."""
    own = encoded(text, len(text.split()))
    pieces = [text[start:end] for start, end in own.spans]
    return {(identity, chunk): piece for chunk, piece in enumerate([text, *pieces[1:]])}


def check_alone(store: RoutedStore) -> None:
    """See that no document is in two tables."""
    times = Counter(identity for own in held(store).values() for identity in own)
    assert not [identity for identity, number in times.items() if number > 1]


@settings(max_examples=60, deadline=None)
@given(changes=CHANGES, apart=st.booleans(), several=st.booleans(), data=st.data())
def test_cut_off_anywhere_the_tables_are_as_replayed(
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[Change],
    apart: bool,
    several: bool,
    data: st.DataObject,
) -> None:
    """Killed before or after any commit to any table, successors end with the in-order tables.

    Each goes on from the directory's progress and cuts the lanes into commits of its own. At any
    moment a document that is never deleted can be looked up.
    """
    store = routed_in(tmp_path_factory.mktemp("tables"), several_topics=several)
    stream = Stream(store, changes, apart)
    kills = data.draw(st.integers(0, 3), label="kills")
    with pytest.MonkeyPatch.context() as patch:
        while True:
            cut, after = data.draw(st.integers(0, 12)), data.draw(st.booleans())
            scissors = Scissors(patch, cut if kills else 1 << 30, after=after)
            kills -= 1
            try:
                with scissors:
                    stream.bring_on(data)
                break
            except Cut:
                store.ensure()
                stream.check_kept()
    stream.check()
    assert store.progress([lane.key for lane in stream.lanes]) == stream.ends


@pytest.mark.parametrize(
    ("at", "after"), [(at, after) for at in range(4) for after in (True, False)]
)
def test_a_move_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, after: bool
) -> None:
    """Wherever a commit that moves a document is cut off, it is there, and then in one table.

    What it is moved by may be nothing but metadata, and needs its row when it is read again.
    """
    store = routed_in(tmp_path)
    writer = opened(store)
    commit(writer, store, outcomes([document("a", "docs_x", "1")]))
    moved = outcomes([document("a", "docs_y", "1", patch=True)], 1)
    # Of the new name, of the new table, of the row, of the deletion.
    with Scissors(monkeypatch, at, after=after), pytest.raises(Cut):
        commit(writer, store, moved)
    assert store.lookup(["a"])["a"].text == "1"
    writer = opened(store)
    assert store.lookup(["a"])["a"].text == "1"
    check_alone(store)
    commit(writer, store, moved)
    assert without_empty(held(store)) == {"docs_y": {"a": "1"}}
    commit(writer, store, outcomes([tombstone("a")], 2))
    assert without_empty(held(store)) == {}


def test_what_the_directory_lacks_is_deleted_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row written just before the end of a writer is found by a deletion in the next commit."""
    store = routed_in(tmp_path)
    writer = opened(store)
    commit(writer, store, outcomes([document("other", "docs_x")]))
    rows = [document("a", "docs_x"), tombstone("a")]
    # docs_x is written, the directory is not.
    with Scissors(monkeypatch, 1, after=False), pytest.raises(Cut):
        commit(writer, store, outcomes(rows[:1], 1))
    assert "a" in held(store)["docs_x"]
    writer = opened(store)
    commit(writer, store, outcomes(rows, 1))  # of which the deletion wins
    assert held(store) == {"docs_x": {"other": "some text"}}


def test_no_more_tables_than_allowed(tmp_path: Path) -> None:
    """One table too many ends the writer before anything of the commit is written."""
    store = routed_in(tmp_path, max_tables=2)
    writer = opened(store)
    commit(writer, store, outcomes([document("a", "docs_x"), document("b", "docs_y")]))
    with pytest.raises(SinkError, match=r"table\.max_tables: 2: docs_z would be one more"):
        commit(writer, store, outcomes([document("a", "docs_z"), document("b", "docs_x")], 2))
    assert held(store) == {"docs_x": {"a": "some text"}, "docs_y": {"b": "some text"}}
    assert store.progress([LANE.key]) == {LANE.key: 2}


def test_refuses_a_table_that_is_not_its_own(tmp_path: Path) -> None:
    """A table that the directory does not know is left alone, and named."""
    store = routed_in(tmp_path)
    store.table("docs_x").ensure()
    writer = opened(store)
    with pytest.raises(SinkError, match=r"table\.name: docs_x: is there already, and _headrace_"):
        commit(writer, store, outcomes([document("a", "docs_x")]))


def test_a_table_that_is_gone_is_read_again(tmp_path: Path) -> None:
    """Its documents are forgotten and all lanes begin anew; the other tables stay as they are."""
    store = routed_in(tmp_path)
    rows = [document("a", "docs_x"), document("b", "docs_y"), document("a", "docs_y", "moved")]
    rows += [document("c", "docs_x"), document("d", "docs_x"), tombstone("d")]
    whole = outcomes(rows)
    commit(opened(store), store, whole)
    shutil.rmtree(store.table("docs_x").path)
    with pytest.raises(WriterLostError, match=r"docs_x: gone from .* is read again"):
        opened(store)
    assert store.progress([LANE.key]) == {}
    writer = opened(store)
    assert writer.fence.progress == {}
    for first in range(len(rows)):
        commit(writer, store, whole.slice(first, first + 1))
    assert held(store) == {"docs_x": {"c": "some text"}, "docs_y": {"a": "moved", "b": "some text"}}


@pytest.mark.parametrize(
    ("at", "after"), [(at, after) for at in range(3) for after in (True, False)]
)
def test_forgetting_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, after: bool
) -> None:
    """Wherever the writer that finds a table gone is ended, its documents are read again."""
    store = routed_in(tmp_path)
    whole = outcomes([document("a", "docs_x"), document("b", "docs_y")])
    commit(opened(store), store, whole)
    shutil.rmtree(store.table("docs_x").path)
    with Scissors(monkeypatch, at, after=after), pytest.raises((Cut, WriterLostError)):
        opened(store)
    for _ in range(2):
        try:
            writer = opened(store)
            break
        except WriterLostError:
            continue
    assert writer.fence.progress == {}
    commit(writer, store, whole)
    assert held(store) == {"docs_x": {"a": "some text"}, "docs_y": {"b": "some text"}}


def test_a_table_that_is_gone_gets_what_was_patched(tmp_path: Path) -> None:
    """A document that metadata alone have moved to it finds its text where it was before."""
    store = routed_in(tmp_path)
    rows = [document("a", "docs_x", "1"), document("a", "docs_y", "1", patch=True)]
    writer = opened(store)
    for offset, row in enumerate(rows):
        commit(writer, store, outcomes([row], offset))
    shutil.rmtree(store.table("docs_y").path)
    with pytest.raises(WriterLostError):
        opened(store)
    writer = opened(store)
    commit(writer, store, outcomes(rows[:1]))
    assert store.lookup(["a"])["a"].text == "1"
    commit(writer, store, outcomes(rows[1:], 1))
    assert held(store) == {"docs_x": {}, "docs_y": {"a": "1"}}


def test_an_empty_table_that_is_gone_is_let_go(tmp_path: Path) -> None:
    """To delete the table of a tenant who has left costs nothing, and makes room."""
    store = routed_in(tmp_path, max_tables=1)
    writer = opened(store)
    commit(writer, store, outcomes([document("a", "docs_x"), tombstone("a")]))
    commit(writer, store, outcomes([document("a", "docs_x")], 2))
    commit(writer, store, outcomes([tombstone("a")], 3))
    shutil.rmtree(store.table("docs_x").path)
    writer = opened(store)
    assert store.progress([LANE.key]) == {LANE.key: 4}
    commit(writer, store, outcomes([document("a", "docs_y")], 4))
    assert held(store) == {"docs_y": {"a": "some text"}}


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("commits", [1, 2])
def test_a_table_from_a_backup_is_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, after: bool, commits: int
) -> None:
    """It gets what it lacks from the topic, and loses what has left it or was deleted since.

    So it is wherever the writer that mends it is cut off.
    """
    store = routed_in(tmp_path)
    writer = opened(store)
    early = [document(name, "docs_x") for name in ("kept", "moves", "goes", "stays")]
    late = [tombstone("goes"), document("new", "docs_x"), document("kept", "docs_x", "changed")]
    moves = document("moves", "docs_y") if commits == 2 else tombstone("moves")
    late.append(moves)  # what leaves a table takes a commit to it of its own
    commit(writer, store, outcomes(early))
    shutil.copytree(store.table("docs_x").path, tmp_path / "backup")
    commit(writer, store, outcomes(late, 4))
    wanted = held(store)
    shutil.rmtree(store.table("docs_x").path)
    shutil.copytree(tmp_path / "backup", store.table("docs_x").path)
    with Scissors(monkeypatch, at, after=after), pytest.raises((Cut, WriterLostError)):
        opened(store)
    with suppress(WriterLostError):
        opened(store)
    check_alone(store)
    writer = opened(store)
    assert writer.fence.progress == {LANE.key: 4}
    commit(writer, store, outcomes(late, 4))
    assert held(store) == wanted
    # What it has from before is still known to be there.
    commit(writer, store, outcomes([tombstone("stays"), document("new", "docs_y")], 8))
    moved = {"moves": "some text"} if commits == 2 else {}
    assert held(store) == {
        "docs_x": {"kept": "changed"},
        "docs_y": {**moved, "new": "some text"},
    }


@settings(max_examples=40, deadline=None)
@given(changes=CHANGES, apart=st.booleans(), several=st.booleans(), data=st.data())
def test_any_table_lost_or_restored(
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[Change],
    apart: bool,
    several: bool,
    data: st.DataObject,
) -> None:
    """Whichever tables are deleted or put back to an earlier moment, the end is as replayed.

    So it is wherever the writer that mends them is cut off.
    """
    folder = tmp_path_factory.mktemp("tables")
    store = routed_in(folder / "now", several_topics=several)
    stream = Stream(store, changes, apart)
    stream.bring_on(data, [data.draw(st.integers(0, len(own))) for own in stream.records])
    shutil.copytree(folder / "now", folder / "backup")
    stream.bring_on(data)
    for name in list(store.tables()):
        match data.draw(st.sampled_from(["stays", "goes", "from backup"]), label=name):
            case "goes":
                shutil.rmtree(store.table(name).path)
            case "from backup":
                shutil.rmtree(store.table(name).path)
                if (folder / "backup" / f"{name}.lance").exists():
                    shutil.copytree(folder / "backup" / f"{name}.lance", store.table(name).path)
    with pytest.MonkeyPatch.context() as patch:
        for _ in range(data.draw(st.integers(0, 2), label="cuts")):
            cut, after = data.draw(st.integers(0, 6)), data.draw(st.booleans())
            with Scissors(patch, cut, after=after), suppress(Cut, WriterLostError):
                opened(store)
    with suppress(WriterLostError):
        opened(store)
    stream.bring_on(data)
    stream.check()


def test_a_directory_from_an_older_moment_is_no_loss(tmp_path: Path) -> None:
    """Of tables that are younger than the directory, it takes in what it lacks."""
    store = routed_in(tmp_path)
    writer = opened(store)
    early = [document("a", "docs_x"), document("moves", "docs_x"), document("c", "docs_y")]
    commit(writer, store, outcomes(early))
    shutil.copytree(store.directory.path, tmp_path / "backup")
    shutil.copytree(store.table("docs_x").path, tmp_path / "backup-x")
    rows = [document("b", "docs_x"), tombstone("a"), document("moves", "docs_y"), tombstone("b")]
    commit(writer, store, outcomes(rows[:3], 3))
    # As a copy would have it that was taken meanwhile: the directory, one table, then the other.
    for name, own in (("backup", store.directory), ("backup-x", store.table("docs_x"))):
        shutil.rmtree(own.path)
        shutil.copytree(tmp_path / name, own.path)
    writer = opened(store)
    check_alone(store)
    assert writer.fence.progress == {LANE.key: 3}
    commit(writer, store, outcomes(rows, 3))
    found = {"docs_x": {}, "docs_y": {"c": "some text", "moves": "some text"}}
    assert held(store) == found
    commit(writer, store, outcomes([tombstone("moves")], 7))
    assert held(store)["docs_y"] == {"c": "some text"}


def test_times_that_go_back(tmp_path: Path) -> None:
    """Where the time of a lane goes back, the directory says which write wins, not a table."""
    store = routed_in(tmp_path)
    writer = opened(store)
    rows = [
        document("a", "docs_x", "1", time_ms=1),
        document("a", "docs_y", "2", time_ms=5),
        document("a", "docs_y", "3", time_ms=1),
    ]
    for offset, row in enumerate(rows):
        commit(writer, store, outcomes([row], offset))
    commit(writer, store, outcomes([document("a", "docs_x", "4", time_ms=3)], lane=OTHER))
    assert without_empty(held(store)) == {"docs_x": {"a": "4"}}


def test_two_names_that_a_file_system_takes_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is refused before anything of the commit is written, also after a new start."""
    path = TableStore.__dict__["path"].fget
    monkeypatch.setattr(TableStore, "path", property(lambda own: path(own).lower()))
    store = routed_in(tmp_path)
    both = outcomes([document("a", "docs_A"), document("b", "docs_a")])
    for _ in range(2):
        with pytest.raises(SinkError, match=r"table\.name: docs_a: is there already"):
            commit(opened(store), store, both)
    assert store.tables().keys() == {"docs_A"}
    assert held(store) == {"docs_A": {}}


def test_refuses_other_columns(tmp_path: Path) -> None:
    """A table that has other columns than the settings say is named at the start."""
    store = routed_in(tmp_path)
    commit(opened(store), store, outcomes([document("a", "docs_x")]))
    with pytest.raises(SinkError, match=r"^table\.columns: .* do not fit table docs_x in"):
        opened(routed_in(tmp_path, columns={"price": "float64"}))
    with pytest.raises(SinkError, match=r"^source\.topics: table _headrace_directory.* one topic"):
        opened(routed_in(tmp_path, several_topics=True))


def test_a_second_writer_while_the_first_makes_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first writes nothing to a table that it has taken back; a deletion still finds all."""
    store = routed_in(tmp_path)
    first = opened(store)
    commit(first, store, outcomes([document("other", "docs_x")]))
    made = RoutedWriter._opened
    seconds: list[RoutedWriter] = []

    def made_late(writer: RoutedWriter, name: str) -> TableWriter:
        if name == "docs_new" and not seconds:
            monkeypatch.setattr(RoutedWriter, "_opened", made)
            seconds.append(opened(store))
        return made(writer, name)

    monkeypatch.setattr(RoutedWriter, "_opened", made_late)
    with pytest.raises(SinkError, match="a second copy"):
        commit(first, store, outcomes([document("a", "docs_new")], 1))
    both = outcomes([document("a", "docs_new"), tombstone("a")], 1)
    commit(seconds[0], store, both)
    assert without_empty(held(store)) == {"docs_x": {"other": "some text"}}


def test_a_second_writer_ends_the_first(tmp_path: Path) -> None:
    """The one that came first can commit to no table and not move progress."""
    store = routed_in(tmp_path)
    first = opened(store)
    commit(first, store, outcomes([document("a", "docs_x")]))
    second = opened(store)
    with pytest.raises(SinkError, match="a second copy of this flow writes it"):
        commit(first, store, outcomes([document("b", "docs_x")], 1))
    with pytest.raises(SinkError, match="a second copy of this flow writes it"):
        first.idle()
    commit(second, store, outcomes([document("b", "docs_x")], 1))
    assert held(store) == {"docs_x": {"a": "some text", "b": "some text"}}


def test_a_second_writer_sees_what_the_first_has_just_written(tmp_path: Path) -> None:
    """What the first has brought into a table before the second took that over is not lost."""
    store = routed_in(tmp_path)
    first = opened(store)
    commit(first, store, outcomes([document("other", "docs_x")]))
    with pytest.MonkeyPatch.context() as patch:
        merge = TableWriter._try_merge
        seconds: list[RoutedWriter] = []

        def merge_late(writer: TableWriter, rows: Any, fence: Any) -> bool:
            done = merge(writer, rows, fence)
            if not seconds:
                patch.setattr(TableWriter, "_try_merge", merge)
                seconds.append(opened(store))
            return done

        patch.setattr(TableWriter, "_try_merge", merge_late)
        with pytest.raises(SinkError, match="a second copy"):
            commit(first, store, outcomes([document("a", "docs_x")], 1))
    commit(seconds[0], store, outcomes([document("a", "docs_x"), tombstone("a")], 1))
    assert held(store) == {"docs_x": {"other": "some text"}}


def test_rows_are_looked_up_in_their_tables(tmp_path: Path) -> None:
    """A patch finds its document's row, and a longer text the vectors of its chunks, anywhere."""
    store = routed_in(tmp_path)
    writer = opened(store)
    rows = [document("a", "docs_x", "1"), document("b", "docs_y", "2"), document("c", "docs_y")]
    commit(writer, store, outcomes([*rows, tombstone("c")]))
    found = store.lookup(["a", "b", "c", "d"])
    assert {identity: row.text for identity, row in found.items()} == {"a": "1", "b": "2"}
    assert store.vectors(["a", "b"]) == {}  # no hashes were told
    # What it keeps of them is its own: the writer's process gets none of it.
    assert pickle.loads(pickle.dumps(store)) == store  # noqa: S301 - its own


def test_tables_are_kept_up(tmp_path: Path) -> None:
    """Each table gets its indexes and loses old tombstones, in turn."""
    store = routed_in(tmp_path)
    writer = opened(store, Upkeep(1 << 40, 1e9, text_index=True))
    names = [f"docs_{number}" for number in range(12)]
    rows = [document(f"d{number}", name) for number, name in enumerate(names)]
    commit(writer, store, outcomes(rows))

    builds: list[float] = []

    def indexed() -> bool:
        writer.idle()
        builds.extend(writer.index_builds())
        return len(builds) == len(names)

    until(indexed, 60)
    assert all(store.table(name).open().describe_indices() for name in names)
