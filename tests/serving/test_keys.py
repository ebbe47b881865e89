"""The issuer's keys: kept, fetched anew, and not fetched too often."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from jwt.exceptions import PyJWKClientConnectionError

from serving.auth import tokens_of
from serving.keys import RETRY_S, KeySet, KeysUnavailableError
from serving.problems import ProblemError
from tests.serving.services import settings_of
from tests.serving.test_auth import EC, RSA, claims, jwk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def issuing(document: dict[str, Any]) -> Iterator[str]:
    """A server that has a key set for all; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/keys"
        server.shutdown()
        thread.join()


def test_over_http(tmp_path: Path) -> None:
    """The keys are fetched from the URL of the settings, and judge the tokens."""
    document = {"keys": [jwk(RSA, "a")]}
    with issuing(document) as url:
        found = tokens_of(settings_of(tmp_path, auth={"jwks_url": url}).auth)
        assert found is not None
        signed = jwt.encode(claims(), RSA, "RS256", headers={"kid": "a"})
        assert asyncio.run(found.caller(signed)).subject == "u1"
    with pytest.raises(ProblemError):
        asyncio.run(found.caller(jwt.encode(claims(), EC, "ES256", headers={"kid": "a"})))


class Issuer:
    """Gives its keys, and counts how often."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = [jwk(RSA, "a")]
        self.fetched = 0
        self.away = False
        self.now = 1000.0

    def fetch(self) -> dict[str, Any]:
        """The key set."""
        self.fetched += 1
        if self.away:
            raise PyJWKClientConnectionError("no route to host")
        return {"keys": self.keys}

    def key_set(self, cache_s: float = 300) -> KeySet:
        """A set of its keys by its clock."""
        return KeySet(self.fetch, cache_s, lambda: self.now)


@pytest.fixture
def issuer() -> Issuer:
    """An issuer with one key."""
    return Issuer()


def key(keys: KeySet, identity: str | None) -> Any:
    """The key of that id."""
    return asyncio.run(keys.key(identity))


def test_kept(issuer: Issuer) -> None:
    """Keys are fetched once, and again when their time is over."""
    keys = issuer.key_set()
    for _ in range(3):
        assert key(keys, "a") is not None
    assert issuer.fetched == 1
    issuer.now += 301
    assert key(keys, "a") is not None
    assert issuer.fetched == 2


def test_rotation(issuer: Issuer) -> None:
    """A new key serves from its first token on; the old one goes with the next fetch."""
    keys = issuer.key_set()
    assert key(keys, "a") is not None
    issuer.keys = [jwk(EC, "b")]
    issuer.now += RETRY_S
    assert key(keys, "b") is not None
    assert key(keys, "a") is None
    assert issuer.fetched == 2


def test_unknown_ids(issuer: Issuer) -> None:
    """Tokens that name keys which nobody has don't make the server ask again and again."""
    keys = issuer.key_set()
    assert key(keys, "a") is not None
    issuer.now += RETRY_S
    for number in range(100):
        assert key(keys, f"made up {number}") is None
    assert issuer.fetched == 2


def test_issuer_away(issuer: Issuer) -> None:
    """While the issuer is away, the keys from before serve on."""
    keys = issuer.key_set()
    assert key(keys, "a") is not None
    issuer.away = True
    issuer.now += 1000
    for _ in range(3):
        assert key(keys, "a") is not None
    assert issuer.fetched == 2


@pytest.mark.parametrize("found", [{}, {"keys": []}, {"keys": 7}, [], "x", None])
def test_no_keys(found: object) -> None:
    """Without any key no token can be judged; that is told as such, whatever the issuer gives."""
    keys = KeySet(lambda: found, 300)
    with pytest.raises(KeysUnavailableError):
        key(keys, "a")


def test_many_at_once(issuer: Issuer) -> None:
    """Requests that come while keys are fetched wait for the one fetch."""
    keys = issuer.key_set()

    async def many() -> list[Any]:
        return await asyncio.gather(*(keys.key("a") for _ in range(20)))

    assert None not in asyncio.run(many())
    assert issuer.fetched == 1
