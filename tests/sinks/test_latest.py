"""The documents that came last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sinks.latest import KEPT, Latest
from sinks.search import TableReader
from tests.samples import embedding, outcomes, tombstone
from tests.sinks.tables import Table, store_in

if TYPE_CHECKING:
    from pathlib import Path


def commit(table: Table, first: int, *ids: str) -> None:
    """Documents of one commit, later than those before."""
    rows = [embedding(identity, f"text of {identity}") for identity in ids]
    table.commit(outcomes(rows, first, embedded_at=1000 + first))


def test_newest_first(tmp_path: Path) -> None:
    """What came last is told first, without rows that are no documents."""
    table = Table(store_in(tmp_path))
    latest = Latest(TableReader(table.store))
    assert latest.documents() == []
    commit(table, 0, "a", "b")
    table.commit(outcomes([tombstone("x")], 2))
    commit(table, 3, "c")
    found = latest.documents()
    assert found[0].id == "c"
    assert {one.id for one in found} == {"a", "b", "c"}
    assert found[0].text == "text of c"
    assert latest.documents() == found


def test_a_document_is_told_once(tmp_path: Path) -> None:
    """One that changed is told as it is now, and no more are told than fit."""
    table = Table(store_in(tmp_path))
    latest = Latest(TableReader(table.store))
    commit(table, 0, *(f"{number}" for number in range(KEPT + 5)))
    latest.documents()
    commit(table, 100, "3")
    found = latest.documents()
    assert found[0].id == "3"
    assert found[0].embedded_at_ms == 1100
    assert len(found) == len({one.id for one in found}) == KEPT


def test_old_rows_in_new_files_are_not_new(tmp_path: Path) -> None:
    """After a compaction the newest documents are still the newest."""
    table = Table(store_in(tmp_path))
    latest = Latest(TableReader(table.store))
    for number in range(20):
        commit(table, number * 10, f"{number}")
    before = latest.documents()
    table.store.open().optimize.compact_files()
    assert latest.documents()[: len(before)] == before
    assert before[0].id == "19"


def test_what_was_deleted_is_told_no_more(tmp_path: Path) -> None:
    """A deletion takes its document away, though older ones come in its place."""
    table = Table(store_in(tmp_path))
    latest = Latest(TableReader(table.store))
    commit(table, 0, "a", "b")
    assert {one.id for one in latest.documents()} == {"a", "b"}
    table.commit(outcomes([tombstone("a")], 2, embedded_at=2000))
    assert [one.id for one in latest.documents()] == ["b"]
    commit(table, 2100, "a")
    assert [one.id for one in latest.documents()] == ["a", "b"]
