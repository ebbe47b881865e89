"""Applications and servers for the tests of the HTTP services."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import jwt
import numpy as np
import uvicorn

from flows.settings import load
from serving.app import ReadyMade, create_app
from tests.samples import DIMENSION, encoded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from fastapi import FastAPI
    from numpy.typing import NDArray

    from flows.settings import Settings

SECRET = "a secret that is long enough for HS256"  # noqa: S105 - of the tests alone
FINGERPRINT = "f1"


class FakeModel:
    """Embeds a query as `tests.samples` embeds a text: the same words are nearest."""

    name = "some/model"
    fingerprint = FINGERPRINT
    dimension = DIMENSION

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def encode_queries(self, texts: list[str]) -> NDArray[np.float32]:
        """Float32 [texts, dimension]."""
        self.calls.append(list(texts))
        return np.stack([encoded(text).vectors[0] for text in texts])


def settings_of(folder: Path, **sections: Mapping[str, Any]) -> Settings:
    """Settings with those sections, in the form that the environment has them."""
    environment = {
        f"HEADRACE_{section.upper()}__{name.upper()}": value
        if isinstance(value, str)
        else json.dumps(value)
        for section, values in sections.items()
        for name, value in values.items()
    }
    return load(environment, folder)


def token(scope: str = "read write", *, key: str = SECRET, **claims: object) -> str:
    """A good token of HS256, but for the claims given; None leaves one out."""
    now = int(time.time())
    content = {"sub": "u1", "aud": "headrace", "exp": now + 60, "scope": scope, **claims}
    return jwt.encode({k: v for k, v in content.items() if v is not None}, key, "HS256")


def bearer(text: str) -> dict[str, str]:
    """The header with a token."""
    return {"authorization": f"Bearer {text}"}


@asynccontextmanager
async def asked(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application in this event loop, alive as its server would have it."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


def ask(app: FastAPI, method: str, path: str, **request: Any) -> httpx.Response:
    """One request to an application, without a server."""

    async def one() -> httpx.Response:
        async with asked(app) as client:
            return await client.request(method, path, **request)

    return asyncio.run(one())


def problem(answer: httpx.Response) -> tuple[int, str]:
    """The status and code of an answer that is a problem document."""
    assert answer.headers["content-type"] == "application/problem+json"
    content = answer.json()
    assert content["status"] == answer.status_code
    assert content["title"]
    assert content["detail"]
    return answer.status_code, content["code"]


@contextmanager
def serving(settings: Settings, model: FakeModel | None = None) -> Iterator[str]:
    """A server in a thread, on a port of its own; gives its address."""
    app = create_app(settings, ReadyMade(model or FakeModel()))
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive())
        assert server.started
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def until(done: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def lines(*documents: Mapping[str, Any]) -> bytes:
    """Documents as JSON lines."""
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


def digest(parts: Sequence[str]) -> str:
    """A short name for something."""
    return hashlib.blake2b("/".join(parts).encode(), digest_size=6).hexdigest()
