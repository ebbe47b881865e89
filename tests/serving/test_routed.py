"""Searches over HTTP of tables that records name: each tenant's apart from the others'."""

from __future__ import annotations

import shutil
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.access import routed_tables
from serving import routed
from serving.problems import ProblemError
from serving.routed import RoutedTables
from sinks.errors import WriterLostError
from sinks.maintenance import Upkeep
from tests.samples import LANE, outcomes, tombstone
from tests.serving.services import (
    SECRET,
    FakeModel,
    bearer,
    problem,
    serving,
    settings_of,
    token,
    until,
)
from tests.serving.test_search import filled, ids, search
from tests.sinks.tables import live
from tests.sinks.test_router import Cut, Scissors, commit, document, opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flows.settings import Settings
    from sinks.routed import RoutedStore
    from sinks.router import RoutedWriter

MODES = ("vector", "text", "hybrid")
INDEXED = Upkeep(index_rows=1 << 40, tombstone_retention_s=1e9, text_index=True)
"""Upkeep that indexes texts and does nothing else."""

MALFORMED = (
    *("", ".", "..", "*", "docs_", "docs_x ", "DOCS_X", "docs_x.lance", "docs_{/tenant}"),
    *("../docs_x", "./docs_x", "docs_x/", "docs_x/../docs_y", "/etc/passwd", "docs_x\0", "é" * 999),
    *("_headrace_directory-docs-tenant", "_headrace_aliases", "documents"),
)
"""What leads to no table of a template, the tables beside them included."""


def settings_in(folder: Path, **sections: Any) -> Settings:
    """Settings of a server that searches the tables of tenants in a folder."""
    return settings_of(
        folder,
        source={"topics": LANE.topic, "text": "/text"},
        table={"uri": str(folder), "name": "docs_{/tenant}"},
        serve={"parts": "search", "after_timeout_s": 2},
        **sections,
    )


def store_of(configured: Settings) -> RoutedStore:
    """Those tables, as their writer has them."""
    return routed_tables(configured, FakeModel())


def filled_tables(store: RoutedStore) -> None:
    """Two tenants' documents, with text indexes; both have one of the same text."""
    writer = opened(store, INDEXED)
    rows = [document("x1", "docs_x", "flour"), document("x2", "docs_x", "flour of rye")]
    rows += [document("y1", "docs_y", "flour"), document("y2", "docs_y", "the ship")]
    commit(writer, store, outcomes(rows))
    index(writer, store, "docs_x", "docs_y")


def index(writer: RoutedWriter, store: RoutedStore, *names: str) -> None:
    """Let the writer make the text indexes of tables."""

    def done() -> bool:
        writer.idle()
        return all(store.table(name).open().describe_indices() for name in names)

    until(done)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running server over tables that nobody changes."""
    folder = tmp_path_factory.mktemp("routed")
    filled(folder)  # a table beside them that is none of them
    configured = settings_in(folder)
    filled_tables(store_of(configured))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serving.app.OUTAGE_S", 0.1)
        with serving(configured) as address:
            yield address


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("where", [None, "true", "id = 'x1' OR id = 'y1'"])
def test_each_tenant_alone(url: str, mode: str, where: str | None) -> None:
    """Whatever the mode and condition, a search finds documents of the table it names alone."""
    found = {
        name: ids(search(url, "flour", table=name, mode=mode, filter=where, k=100))
        for name in ("docs_x", "docs_y")
    }
    assert found["docs_x"][0] == "x1"
    assert set(found["docs_x"]) <= {"x1", "x2"}
    assert found["docs_y"][0] == "y1"
    assert set(found["docs_y"]) <= {"y1", "y2"}


def test_no_name(url: str) -> None:
    """A search that names no table is told to."""
    answer = search(url, "flour")
    assert problem(answer) == (422, "table_needed")
    assert "docs_{/tenant}" in answer.json()["detail"]


@pytest.mark.parametrize("name", ["docs_z", *MALFORMED])
def test_no_table(url: str, name: str) -> None:
    """No name but those in the directory leads anywhere, be there such a folder or not."""
    answer = search(url, "flour", table=name)
    assert problem(answer) == (404, "no_table")
    assert len(answer.content) < 1000


def test_no_latest_documents(url: str) -> None:
    """The page's stream has no documents, which would be those of all tenants."""
    state = httpx.get(f"{url}/v1/live", timeout=60)
    assert state.status_code == 200
    assert state.json()["latest"] == []


def test_a_new_tenant(tmp_path: Path) -> None:
    """The first document of a tenant is found by a search that waits for it, without a restart."""
    configured = settings_in(tmp_path)
    store = store_of(configured)
    writer = opened(store)
    with serving(configured) as url:
        assert problem(search(url, "flour", table="docs_x")) == (404, "no_table")
        for offset, name in enumerate(("docs_x", "docs_y")):
            batch = outcomes([document("a", name, "flour"), document(name, name)], 2 * offset)
            after = {"topic": LANE.topic, "partition": LANE.partition, "offset": batch.end - 1}
            later = threading.Timer(0.3, commit, [writer, store, batch])
            later.start()
            assert set(ids(search(url, "flour", table=name, after=after))) == {"a", name}
            later.join()
        assert ids(search(url, "flour", table="docs_x")) == ["docs_x"]  # the other has moved


def test_after_in_vain(tmp_path: Path) -> None:
    """A search waits for all tables to have a record: one that has not come is told as that."""
    configured = settings_in(tmp_path)
    store = store_of(configured)
    writer = opened(store)
    commit(writer, store, outcomes([document("a", "docs_x")]))
    after = {"topic": LANE.topic, "partition": LANE.partition, "offset": 1}
    with serving(configured) as url:
        # docs_x has the record, the directory does not.
        with (
            pytest.MonkeyPatch.context() as patch,
            Scissors(patch, 1, after=False),
            pytest.raises(Cut),
        ):
            commit(writer, store, outcomes([document("b", "docs_x")], 1))
        assert problem(search(url, "x", table="docs_x", after=after)) == (504, "not_yet")
        after["topic"] = "views"
        assert problem(search(url, "x", table="docs_x", after=after)) == (422, "bad_after")


def test_ready(tmp_path: Path) -> None:
    """A server is ready once the directory is there, unless it is of another model."""
    configured = settings_in(tmp_path)
    model = FakeModel()
    with serving(configured, model) as url:
        assert problem(httpx.get(f"{url}/health/ready")) == (503, "not_ready")
        assert problem(search(url, "x", table="docs_x")) == (503, "table_unavailable")
        store = store_of(configured)
        commit(opened(store), store, outcomes([document("a", "docs_x")]))
        until(lambda: httpx.get(f"{url}/health/ready").status_code == 200)
        assert ids(search(url, "x", table="docs_x")) == ["a"]
        model.fingerprint = "f2"
        time.sleep(1.1)
        answer = search(url, "x", table="docs_x")
        assert problem(answer) == (503, "table_unavailable")
        assert "fingerprint f2" in answer.json()["detail"]
        assert problem(httpx.get(f"{url}/health/ready")) == (503, "not_ready")


def test_no_text_index(tmp_path: Path) -> None:
    """A search by words of a table without a text index says that there is none yet."""
    configured = settings_in(tmp_path)
    store = store_of(configured)
    commit(opened(store), store, outcomes([document("a", "docs_x", "flour")]))
    with serving(configured) as url:
        for mode in ("text", "hybrid"):
            answer = search(url, "flour", table="docs_x", mode=mode)
            assert problem(answer) == (503, "no_text_index")


def test_a_table_that_is_gone_comes_back(tmp_path: Path) -> None:
    """A deleted table is told as that, then as none, and what is made anew is found without old.

    The caches that readers share have the old one under the same path.
    """
    configured = settings_in(tmp_path)
    store = store_of(configured)
    filled_tables(store)
    with serving(configured) as url:
        assert set(ids(search(url, "flour", table="docs_x", mode="hybrid"))) == {"x1", "x2"}
        shutil.rmtree(store.table("docs_x").path)
        assert problem(search(url, "flour", table="docs_x")) == (503, "table_unavailable")
        with pytest.raises(WriterLostError):
            opened(store)
        until(lambda: search(url, "flour", table="docs_x").status_code == 404)
        commit(opened(store), store, outcomes([document("new", "docs_x", "flour")], 4))
        assert ids(search(url, "flour", table="docs_x")) == ["new"]
        answer = search(url, "flour", table="docs_x", mode="text")
        assert problem(answer) == (503, "no_text_index")
        assert set(ids(search(url, "flour", table="docs_y"))) == {"y1", "y2"}


@pytest.mark.parametrize("upkeep", [INDEXED, None])
def test_another_table_of_as_many_versions(tmp_path: Path, upkeep: Upkeep | None) -> None:
    """Where nothing but its files tells that a table is another, its documents are found at once.

    With an index and without: caches keep those by the version's number.
    """
    stores = [store_of(settings_in(tmp_path / folder)) for folder in ("old", "new")]
    for store, name in zip(stores, ("old", "new"), strict=True):
        writer = opened(store, upkeep or Upkeep(1 << 40, 1e9))
        commit(writer, store, outcomes([document(name, "docs_x", f"flour {name}")]))
        if upkeep:
            index(writer, store, "docs_x")
    old, new = (store.table("docs_x") for store in stores)
    mode = "hybrid" if upkeep else "vector"
    with serving(settings_in(tmp_path / "old")) as url:
        assert ids(search(url, "flour", table="docs_x", mode=mode)) == ["old"]
        versions = old.open().version, new.open().version
        shutil.rmtree(old.path)
        shutil.copytree(new.path, old.path)
        assert ids(search(url, "flour", table="docs_x", mode=mode)) == ["new"]
    assert versions[0] == versions[1]


def test_readers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some tables are kept open, those that were asked for last; the others are opened again."""
    monkeypatch.setattr(routed, "KEPT_READERS", 2)
    store = store_of(settings_in(tmp_path))
    names = [f"docs_{number}" for number in range(4)]
    commit(opened(store), store, outcomes([document(name, name) for name in names]))
    tables = RoutedTables(store, FakeModel())
    first = tables.reader(names[0])
    for name in (*names[:2], names[0], names[2]):
        assert list(live(tables.reader(name).store)) == [(name, 0)]
    assert list(tables._readers) == [names[0], names[2]]
    assert tables.reader(names[0]) is first
    with pytest.raises(ProblemError):
        tables.reader("docs_4")
    assert len(tables._readers) == 2


MOVES = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["docs_x", "docs_y", None])),
    min_size=1,
    max_size=8,
)


@pytest.fixture(scope="module")
def changing(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[RoutedStore, str]]:
    """Tables that are changed, and a server over them."""
    configured = settings_in(tmp_path_factory.mktemp("changing"))
    store = store_of(configured)
    commit(opened(store), store, outcomes([document("a", "docs_x"), document("b", "docs_y")]))
    with serving(configured) as address:
        yield store, address


@settings(max_examples=15, deadline=None)
@given(moves=MOVES)
def test_documents_move(
    changing: tuple[RoutedStore, str], moves: list[tuple[str, str | None]]
) -> None:
    """However documents go from tenant to tenant, who waits for the last write sees just theirs."""
    store, url = changing
    writer = opened(store)
    first = writer.fence.progress[LANE.key]
    for offset, (name, table) in enumerate(moves, first):
        row = tombstone(name, offset)
        if table is not None:
            row = document(name, table, f"flour {offset}", time_ms=offset)
        commit(writer, store, outcomes([row], offset))
    after = {"topic": LANE.topic, "partition": LANE.partition, "offset": first + len(moves) - 1}
    where = dict(moves)
    for table in ("docs_x", "docs_y"):
        found = set(ids(search(url, "flour", table=table, after=after)))
        assert found & where.keys() == {name for name in where if where[name] == table}


NAMES = ("docs_x", "docs_y", "docs_z", "../docs_x", "")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server over tables whose tokens name those that their bearers may search."""
    auth = {"jwt_key": SECRET, "tables_claim": "tables"}
    configured = settings_in(tmp_path_factory.mktemp("guarded"), auth=auth)
    filled_tables(store_of(configured))
    with serving(configured) as address:
        yield address


def asked(url: str, table: str, claim: object) -> httpx.Response:
    """The answer to a search with a token whose claim names tables; None leaves it out."""
    headers = bearer(token(tables=claim))
    body = {"query": "flour", "table": table}
    return httpx.post(f"{url}/v1/search", json=body, headers=headers, timeout=60)


@settings(max_examples=60, deadline=None)
@given(
    table=st.sampled_from(NAMES),
    claim=st.none()
    | st.sampled_from([*NAMES, "*", "docs_x docs_y", "docs_*", 7, True, {"docs_x": True}])
    | st.lists(st.sampled_from([*NAMES, "*", 7]), max_size=3),
)
def test_who_may_search(guarded: str, table: str, claim: Any) -> None:
    """A table is searched, or told to be none, by those alone whose token names it or says `*`.

    To all others each name is as good as any other: what they are answered depends on it alone.
    """
    answer = asked(guarded, table, claim)
    parts = claim if isinstance(claim, list) else [claim]
    named = {part for part in parts if isinstance(part, str)}
    if named == {"*"} or table in named:
        assert answer.status_code == (200 if table in {"docs_x", "docs_y"} else 404)
        return
    assert problem(answer) == (403, "table_denied")
    assert answer.json()["detail"] == f"table: {table}: is not one that the token names"
    assert "insufficient_scope" in answer.headers["www-authenticate"]


def test_nothing_is_looked_at_for_who_is_denied(
    guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For who may not search a table nothing is read, so that the time it takes tells nothing."""

    def never(*_: object) -> None:
        raise AssertionError("was looked at")

    monkeypatch.setattr("serving.queries.Queries.query", never)
    monkeypatch.setattr("serving.routed.RoutedTables.reader", never)
    for table in NAMES:
        assert problem(asked(guarded, table, ["docs_a"])) == (403, "table_denied")


def test_a_wrong_request_is_told_to_all(guarded: str) -> None:
    """A search that names no table is wrong whoever asks, and the scope is looked at first."""
    body = {"query": "flour"}
    for claim in (None, "docs_x", "*"):
        headers = bearer(token(tables=claim))
        answer = httpx.post(f"{guarded}/v1/search", json=body, headers=headers, timeout=60)
        assert problem(answer) == (422, "table_needed")
    headers = bearer(token("write", tables="*"))
    answer = httpx.post(f"{guarded}/v1/search", json=body, headers=headers, timeout=60)
    assert problem(answer) == (403, "no_scope")


def test_recommendations(guarded: str) -> None:
    """Who is recommended to may search both tables that recommendations are made from."""
    for claim in (None, "products", ["users", "docs_x"]):
        headers = bearer(token(tables=claim))
        answer = httpx.get(f"{guarded}/v1/users/u/recommendations", headers=headers, timeout=60)
        assert problem(answer) == (403, "table_denied")
    for claim in ("*", ["users", "products"]):
        headers = bearer(token(tables=claim))
        answer = httpx.get(f"{guarded}/v1/users/u/recommendations", headers=headers, timeout=60)
        assert problem(answer) == (503, "table_unavailable")  # there are none


def test_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim holds for a single table, too, whether it is named or not; so for its stream."""
    monkeypatch.setattr("serving.live.EVERY_S", 60)
    monkeypatch.setattr("serving.app.OUTAGE_S", 0.1)
    filled(tmp_path)
    configured = settings_of(
        tmp_path,
        auth={"jwt_key": SECRET, "tables_claim": "https://example.com/tables"},
        source={"topics": LANE.topic},
        table={"uri": str(tmp_path), "columns": {"price": "float64"}},
        serve={"parts": "search"},
    )
    with serving(configured) as url:
        cases: list[tuple[Any, int, int]] = [
            ("documents", 200, 4),
            (["other", "documents"], 200, 4),
            ("*", 200, 4),
            ("other", 403, 0),
            (None, 403, 0),
        ]
        for claim, status, shown in cases:
            claims: dict[str, Any] = {"https://example.com/tables": claim}
            headers = bearer(token(**claims))
            with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
                for more in ({}, {"table": "documents"}):
                    answer = client.post("/v1/search", json={"query": "flour", **more})
                    assert answer.status_code == status
                assert len(client.get("/v1/live").json()["latest"]) == shown
