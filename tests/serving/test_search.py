"""Searches over HTTP, of a real table that a writer changes meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from serving.app import ReadyMade, create_app
from tests.samples import LANE, Fields, embedding, outcomes
from tests.serving.services import FakeModel, asked, problem, serving, settings_of
from tests.sinks.tables import Table, store_in
from tests.sinks.test_search import TEXTS, indexed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flows.settings import Settings

COLUMNS = {"price": "float64"}


def filled(folder: Path) -> Table:
    """A table with `TEXTS` and a text index."""
    table = Table(store_in(folder, columns=COLUMNS))
    rows = [
        embedding(name, text, metadata=Fields("{}", '{"kind": "x"}', {"price": float(number)}))
        for number, (name, text) in enumerate(TEXTS.items())
    ]
    table.commit(outcomes(rows))
    indexed(table)
    return table


def searching(folder: Path, **serve: Any) -> Settings:
    """Settings of a server that searches the table in a folder."""
    return settings_of(
        folder,
        source={"topics": LANE.topic},
        table={"uri": str(folder), "columns": COLUMNS},
        serve={"parts": "search", **serve},
    )


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running server over a table that nobody changes."""
    folder = tmp_path_factory.mktemp("search")
    filled(folder)
    with serving(searching(folder)) as address:
        yield address


def search(url: str, query: str, **more: Any) -> httpx.Response:
    """The answer to a search."""
    return httpx.post(f"{url}/v1/search", json={"query": query, **more}, timeout=60)


def ids(answer: httpx.Response) -> list[str]:
    """The ids that an answer has."""
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


@pytest.mark.parametrize("mode", ["vector", "text", "hybrid"])
def test_modes(url: str, mode: str) -> None:
    """Each mode finds a document by its own words; the answer has all that is promised."""
    answer = search(url, TEXTS["ship"], mode=mode, k=2)
    assert ids(answer)[0] == "ship"
    body = answer.json()
    assert body.keys() == {"items", "took_ms"}
    assert body["took_ms"] > 0
    first = body["items"][0]
    assert first.keys() == {"id", "score", "text", "metadata", "chunk"}
    text = first["text"]
    assert text == TEXTS["ship"]
    assert first["chunk"] == {"number": 0, "start": 0, "end": len(text), "text": text}
    assert first["metadata"] == {"kind": "x", "price": 2.0}


def test_pages_and_conditions(url: str) -> None:
    """Pages and conditions hold over HTTP as they do below."""
    whole = ids(search(url, "flour"))
    assert len(whole) == 4
    assert ids(search(url, "flour", k=2, offset=1)) == whole[1:3]
    assert set(ids(search(url, "flour", filter="price < 2"))) == {"bread", "cake"}


def test_the_table_by_name(url: str) -> None:
    """The one table may be named; no other name leads to one."""
    assert len(ids(search(url, "flour", table="documents"))) == 4
    for name in ("", "others", "../documents", "documents.lance"):
        assert problem(search(url, "flour", table=name)) == (404, "no_table")


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"filter": "price <"}, "bad_filter"),
        ({"filter": "no_such = 1"}, "bad_filter"),
        ({"filter": "1 = 1) OR (deleted"}, "bad_filter"),
        ({"filter": "price = 'x'"}, "bad_filter"),
        ({"filter": "text < embedded_at"}, "bad_filter"),
        ({"filter": ""}, "bad_filter"),
        ({"filter": "x" * 5000}, "invalid"),
        ({"k": 1001}, "invalid"),
        ({"table": ["documents"]}, "invalid"),
        ({"offset": 10_001}, "invalid"),
        ({"after": {"topic": "views", "partition": 0, "offset": 0}}, "bad_after"),
    ],
)
def test_wrong(url: str, more: dict[str, Any], code: str) -> None:
    """What can't be right is told as that."""
    assert problem(search(url, "flour", **more)) == (422, code)


def test_after(tmp_path: Path) -> None:
    """A search waits until the table holds a record, and finds what that wrote."""
    table = filled(tmp_path)
    with serving(searching(tmp_path)) as url:
        after = {"topic": LANE.topic, "partition": LANE.partition, "offset": 4}
        later = threading.Timer(1.0, table.commit, [outcomes([embedding("new", "a xylophone")], 4)])
        later.start()
        began = time.monotonic()
        answer = search(url, "a xylophone", after=after)
        assert ids(answer)[0] == "new"
        assert time.monotonic() - began > 0.9
        assert answer.json()["took_ms"] > 300
        assert ids(search(url, "a xylophone", after={**after, "offset": 0}))[0] == "new"
        later.join()


def test_after_in_vain(tmp_path: Path) -> None:
    """A record that does not come in time is told as that; so is a partition that is none."""
    filled(tmp_path)
    with serving(searching(tmp_path, after_timeout_s=0.3)) as url:
        after = {"topic": LANE.topic, "partition": LANE.partition, "offset": 99}
        began = time.monotonic()
        answer = search(url, "x", after=after)
        assert problem(answer) == (504, "not_yet")
        assert 0.25 < time.monotonic() - began < 3
        assert problem(search(url, "x", after={**after, "partition": 7})) == (504, "not_yet")


def test_no_table(tmp_path: Path) -> None:
    """Without a table a search says so and the server isn't ready, until the flow has made it."""
    with serving(searching(tmp_path)) as url:
        answer = search(url, "x")
        assert problem(answer) == (503, "table_unavailable")
        assert answer.headers["retry-after"]
        assert problem(httpx.get(f"{url}/health/ready")) == (503, "not_ready")
        assert httpx.get(f"{url}/health/live").status_code == 200
        filled(tmp_path)
        assert len(ids(search(url, "x"))) == 4
        time.sleep(1.1)
        assert httpx.get(f"{url}/health/ready").status_code == 200


def test_other_model(tmp_path: Path) -> None:
    """A table of another model is refused, also one that comes in the place of a good one."""
    model = FakeModel()
    filled(tmp_path)
    with serving(searching(tmp_path), model) as url:
        assert search(url, "x").status_code == 200
        model.fingerprint = "f2"
        time.sleep(1.1)
        answer = search(url, "x")
        assert problem(answer) == (503, "table_unavailable")
        assert "fingerprint" in answer.json()["detail"]


def test_no_text_index(tmp_path: Path) -> None:
    """A search by words says that there is no text index yet."""
    table = Table(store_in(tmp_path, columns=COLUMNS))
    table.commit(outcomes([embedding("a", "flour")]))
    with serving(searching(tmp_path)) as url:
        assert problem(search(url, "flour", mode="text")) == (503, "no_text_index")


def test_together(tmp_path: Path) -> None:
    """Searches at the same time share calls to the model, and repeated ones need none."""
    filled(tmp_path)
    model = FakeModel()
    app = create_app(searching(tmp_path), ReadyMade(model))

    async def many() -> list[httpx.Response]:
        async with asked(app) as client:
            calls = [client.post("/v1/search", json={"query": f"q{i % 20}"}) for i in range(60)]
            return await asyncio.gather(*calls)

    answers = asyncio.run(many())
    assert {answer.status_code for answer in answers} == {200}
    assert sum(map(len, model.calls)) == 20
    assert len(model.calls) < 10
