"""What a request must pass: rate, content type, size; and how errors are told."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from serving.app import ReadyMade, create_app
from tests.serving.services import (
    SECRET,
    FakeModel,
    ask,
    asked,
    bearer,
    problem,
    settings_of,
    token,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    import httpx
    from fastapi import FastAPI


def searching(folder: Path, auth: Mapping[str, str] | None = None, **serve: Any) -> FastAPI:
    """An application that would search a table which is not there."""
    settings = settings_of(
        folder,
        auth=auth or {},
        serve={"parts": "search", "max_body_bytes": 2000, **serve},
        table={"uri": str(folder / "none")},
    )
    return create_app(settings, ReadyMade(FakeModel()))


SEARCH = {"query": "x"}
AWAY = (503, "table_unavailable")


def test_rate_of_a_user(tmp_path: Path) -> None:
    """A user's requests have a rate, and are told when to come again; others have their own."""
    app = searching(tmp_path, {"jwt_key": SECRET}, rate_limit="3/hour")

    async def requests() -> list[httpx.Response]:
        async with asked(app) as client:
            return [
                await client.post("/v1/search", json=SEARCH, headers=bearer(token(sub=user)))
                for user in ("a", "a", "a", "a", "b")
            ]

    answers = asyncio.run(requests())
    assert [problem(answer)[0] for answer in answers] == [503, 503, 503, 429, 503]
    assert problem(answers[3]) == (429, "too_many_requests")
    assert int(answers[3].headers["retry-after"]) >= 1


def test_rate_of_an_address(tmp_path: Path) -> None:
    """Without tokens an address is a user."""
    app = searching(tmp_path, rate_limit="1/hour")

    async def requests() -> list[int]:
        async with asked(app) as client:
            return [
                (await client.post("/v1/search", json=SEARCH)).status_code,
                (await client.post("/v1/search", json=SEARCH)).status_code,
                (await client.get("/health/live")).status_code,
            ]

    assert asyncio.run(requests()) == [503, 429, 200]


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", AWAY),
        ("application/json; charset=utf-8", AWAY),
        ("Application/JSON", AWAY),
        ("text/plain", (415, "bad_content_type")),
        ("application/x-www-form-urlencoded", (415, "bad_content_type")),
        ("application/jsonp", (415, "bad_content_type")),
        (None, (415, "bad_content_type")),
    ],
)
def test_content_type(tmp_path: Path, content_type: str | None, expected: tuple[int, str]) -> None:
    """A body is taken for nothing but what it says it is."""
    headers = {} if content_type is None else {"content-type": content_type}
    answer = ask(
        searching(tmp_path), "POST", "/v1/search", content=b'{"query": "x"}', headers=headers
    )
    assert problem(answer) == expected


async def _chunks(count: int, size: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b" " * size


@pytest.mark.parametrize("streamed", [False, True])
def test_size(tmp_path: Path, *, streamed: bool) -> None:
    """A body that is too large is refused, also one that does not say how large it is."""
    headers = {"content-type": "application/json"}
    body: Any = _chunks(10, 201) if streamed else b" " * 2001
    answer = ask(searching(tmp_path), "POST", "/v1/search", content=body, headers=headers)
    assert problem(answer) == (413, "too_large")


def test_size_that_fits(tmp_path: Path) -> None:
    """The largest body that may be is taken."""
    body = b'{"query": "x"}'.ljust(2000)
    headers = {"content-type": "application/json"}
    answer = ask(searching(tmp_path), "POST", "/v1/search", content=body, headers=headers)
    assert problem(answer) == AWAY


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"{", "body"),
        (b"[]", "body"),
        (b"{}", "body.query"),
        (b'{"query": "x", "k": 0}', "body.k"),
        (b'{"query": "x", "k": "7"}', "body.k"),
        (b'{"query": "x", "mode": "all"}', "body.mode"),
        (b'{"query": "x", "kk": 1}', "body.kk"),
        (b'{"query": "x", "after": {"topic": "t"}}', "body.after.partition"),
        (b'{"query": "\\ud800"}', "body"),
        (b'{"query": "x", "offset": 1e300}', "body.offset"),
        (b"\xff", "body"),
        (b'{"query": "x", "offset": NaN}', "body"),
        (b'"\\ud800"', "body"),
        (b"[" * 2000, "body"),
    ],
)
def test_invalid(tmp_path: Path, body: bytes, where: str) -> None:
    """Each fault of a body is told with its place."""
    headers = {"content-type": "application/json"}
    answer = ask(searching(tmp_path), "POST", "/v1/search", content=body, headers=headers)
    assert problem(answer) == (422, "invalid")
    assert answer.json()["errors"][0]["where"].startswith(where)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v1/search", (405, "method_not_allowed")),
        ("GET", "/nothing", (404, "not_found")),
        ("POST", "/event", (404, "not_found")),
    ],
)
def test_no_route(tmp_path: Path, method: str, path: str, expected: tuple[int, str]) -> None:
    """A wrong method or path, and the route of a part that is not served, is a problem, too."""
    assert problem(ask(searching(tmp_path), method, path)) == expected


def test_errors_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong inside is told as that, and nothing of it."""
    monkeypatch.setattr("sinks.search.find", lambda *_: 1 / 0)
    monkeypatch.setattr("serving.search.ModelCheck.__call__", lambda _: None)
    monkeypatch.setattr("sinks.search.TableReader.latest", lambda _: None)
    answer = ask(searching(tmp_path), "POST", "/v1/search", json=SEARCH)
    assert problem(answer) == (500, "internal")
    assert "division" not in answer.text


def test_no_cors(tmp_path: Path) -> None:
    """No page of another origin may read an answer, unless the settings say so."""
    headers = {"origin": "https://shop.example"}
    closed = ask(searching(tmp_path), "GET", "/health/live", headers=headers)
    assert "access-control-allow-origin" not in closed.headers
    app = searching(tmp_path, cors_origins="https://shop.example")
    opened = ask(app, "GET", "/health/live", headers=headers)
    assert opened.headers["access-control-allow-origin"] == "https://shop.example"
    other = ask(app, "GET", "/health/live", headers={"origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("declared", ["²", "9" * 5000, "-1", "x"])
def test_a_length_that_is_none(tmp_path: Path, declared: str) -> None:
    """A length that is no number is not the server's error: what arrives is counted."""
    headers = {"content-length": declared.encode("latin-1"), "content-type": "application/json"}
    answer = ask(searching(tmp_path), "POST", "/v1/search", content=b"{}", headers=headers)
    assert problem(answer) == (422, "invalid")


def test_faults_have_a_bound(tmp_path: Path) -> None:
    """A body with a fault in every few bytes gets the first of them, and no long names."""
    body = json.dumps({"x" * 500: 1, **{f"f{n}": 1 for n in range(100)}}).encode()
    answer = ask(
        searching(tmp_path),
        "POST",
        "/v1/search",
        content=body,
        headers={"content-type": "application/json"},
    )
    assert problem(answer) == (422, "invalid")
    assert len(answer.json()["errors"]) == 20
    assert len(answer.content) < 5000
