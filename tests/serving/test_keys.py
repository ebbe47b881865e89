"""The issuer's keys: kept, fetched anew, and not fetched too often."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from jwt.exceptions import PyJWKClientConnectionError

from serving.keys import RETRY_S, KeySet, KeysUnavailableError
from tests.serving.test_auth import EC, RSA, jwk


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
