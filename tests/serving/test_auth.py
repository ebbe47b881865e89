"""Tokens: which are taken, and that no other is."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from serving.app import ReadyMade, create_app
from serving.auth import Claims, PublicTokens, SecretTokens
from serving.keys import KeySet
from serving.problems import ProblemError
from tests.serving.services import SECRET, FakeModel, ask, bearer, problem, settings_of, token

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastapi import FastAPI

CLAIMS = Claims("headrace", "https://issuer", 5)
RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
RSA_PEM = RSA.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def jwk(key: Any, kid: str) -> dict[str, Any]:
    """A public key as a key set has it."""
    is_rsa = isinstance(key, rsa.RSAPrivateKey)
    algorithm = jwt.get_algorithm_by_name("RS256" if is_rsa else "ES256")
    made: dict[str, Any] = algorithm.to_jwk(key.public_key(), as_dict=True)
    return {**made, "kid": kid, "use": "sig"}


OCTETS = {"kty": "oct", "kid": "shared", "k": base64.urlsafe_b64encode(SECRET.encode()).decode()}
KEYS = {"keys": [jwk(RSA, "rsa"), jwk(EC, "ec"), OCTETS]}


def claims(**changed: object) -> dict[str, Any]:
    """Good claims, but for those given; None leaves one out."""
    now = int(time.time())
    content = {"sub": "u1", "aud": "headrace", "iss": "https://issuer", "exp": now + 60}
    made = {**content, "scope": "read write", **changed}
    return {name: value for name, value in made.items() if value is not None}


def public(text: str) -> Any:
    """The caller of a token that is signed with a private key."""
    return asyncio.run(PublicTokens(KeySet(lambda: KEYS, 300), CLAIMS).caller(text))


def secret(text: str) -> Any:
    """The caller of a token that is signed with the secret."""
    return asyncio.run(SecretTokens(SECRET, CLAIMS).caller(text))


def refusal(check: Any, text: str) -> str:
    """Why a token is refused."""
    with pytest.raises(ProblemError) as caught:
        check(text)
    assert caught.value.status_code == 401
    assert (caught.value.headers or {})["WWW-Authenticate"].startswith("Bearer")
    return caught.value.problem.detail


def forged(header: dict[str, Any], content: dict[str, Any], key: bytes) -> str:
    """A token with whatever header, signed by HMAC with whatever key."""

    def part(value: bytes) -> bytes:
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    signed = part(json.dumps(header).encode()) + b"." + part(json.dumps(content).encode())
    return (signed + b"." + part(hmac.digest(key, signed, hashlib.sha256))).decode()


def test_secret() -> None:
    """A token of HS256 with all its claims tells the caller and the scopes."""
    found = secret(jwt.encode(claims(), SECRET, "HS256"))
    assert (found.subject, found.scopes) == ("u1", {"read", "write"})


@pytest.mark.parametrize(("key", "algorithm", "kid"), [(RSA, "RS256", "rsa"), (EC, "ES256", "ec")])
def test_public_keys(key: Any, algorithm: str, kid: str) -> None:
    """A token of RS256 or ES256 is taken by the key that its header names."""
    text = jwt.encode(claims(), key, algorithm, headers={"kid": kid})
    assert public(text).subject == "u1"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"exp": -60}, "expired"),
        ({"exp": None}, "not good"),
        ({"sub": None}, "not good"),
        ({"nbf": 600}, "not valid yet"),
        ({"iat": 600}, "not valid yet"),
        ({"aud": "others"}, "audience"),
        ({"aud": None}, "not good"),
        ({"iss": "https://others"}, "issuer"),
        ({"iss": None}, "not good"),
        ({"exp": "soon"}, "not good"),
    ],
)
def test_claims(changed: dict[str, object], reason: str) -> None:
    """An expired, premature or foreign token is refused, and one that leaves a claim out."""
    # Numbers are seconds from now, and now is when the test runs.
    now = int(time.time())
    given = {name: now + v if isinstance(v, int) else v for name, v in changed.items()}
    assert reason in refusal(secret, jwt.encode(claims(**given), SECRET, "HS256"))
    signed = jwt.encode(claims(**given), EC, "ES256", headers={"kid": "ec"})
    assert reason in refusal(public, signed)


def test_audiences() -> None:
    """A token for several audiences is taken if this one is among them."""
    assert secret(jwt.encode(claims(aud=["a", "headrace"]), SECRET, "HS256")).subject == "u1"


def test_leeway() -> None:
    """Clocks may differ by the leeway."""
    assert secret(jwt.encode(claims(exp=int(time.time()) - 2), SECRET, "HS256")).subject == "u1"


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", "HS999", "hs256"])
def test_no_algorithm(algorithm: str) -> None:
    """A token that names no algorithm, or none that there is, is refused, signed or not."""
    for key in (b"", SECRET.encode()):
        text = forged({"alg": algorithm, "typ": "JWT"}, claims(), key)
        for given in (text, text.rpartition(".")[0] + "."):
            refusal(secret, given)
            refusal(public, given)


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256"])
@pytest.mark.parametrize("kid", ["rsa", "ec", "shared", None])
def test_confusion(algorithm: str, kid: str | None) -> None:
    """A public key is no secret: signed with it by HMAC, a token is refused, whatever it says.

    Nor is a secret that stands in a key set for all to read.
    """
    header = {"alg": algorithm, "typ": "JWT", **({"kid": kid} if kid else {})}
    for key in (RSA_PEM, RSA_PEM.strip(), SECRET.encode()):
        refusal(public, forged(header, claims(), key))


def test_other_keys() -> None:
    """A token that another key has signed is refused, also under a good key's name."""
    refusal(secret, jwt.encode(claims(), "another secret, also long enough", "HS256"))
    refusal(public, jwt.encode(claims(), OTHER_RSA, "RS256", headers={"kid": "rsa"}))
    refusal(public, jwt.encode(claims(), OTHER_RSA, "RS256", headers={"kid": "mine"}))
    refusal(public, jwt.encode(claims(), RSA, "RS256", headers={"kid": "ec"}))
    refusal(public, jwt.encode(claims(), RSA, "RS512", headers={"kid": "rsa"}))
    refusal(secret, jwt.encode(claims(), RSA, "RS256"))


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "é", "x" * 100_000])
def test_garbage(text: str) -> None:
    """What is no token is refused as one that is not good."""
    refusal(secret, text)
    refusal(public, text)


@pytest.mark.parametrize(
    ("scopes", "found"),
    [
        ({"scope": "read  write"}, {"read", "write"}),
        ({"scope": None, "scp": ["read", 3]}, {"read"}),
        ({"scope": None, "scp": "read"}, {"read"}),
        ({"scope": None}, set()),
        ({"scope": ""}, set()),
        ({"scope": {"read": 1}}, set()),
        ({"scope": 7}, set()),
    ],
)
def test_scopes(scopes: dict[str, object], found: set[str]) -> None:
    """Scopes are read as OAuth has them, or as a list; whatever else is none."""
    assert secret(jwt.encode(claims(**scopes), SECRET, "HS256")).scopes == found


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"tables": "a"}, {"a"}),
        ({"tables": "a b"}, {"a b"}),
        ({"tables": ["a", "b", 3, None, ["c"]]}, {"a", "b"}),
        ({"tables": "*"}, None),
        ({"tables": ["*"]}, None),
        ({"tables": ["*", "a"]}, {"*", "a"}),
        ({"tables": []}, set()),
        ({"tables": {"a": 1}}, set()),
        ({"tables": True}, set()),
        ({}, set()),
    ],
)
def test_tables(given: dict[str, object], found: set[str] | None) -> None:
    """Tables are read as one name or a list of them, `*` alone as all; whatever else is none."""
    tokens = SecretTokens(SECRET, replace(CLAIMS, tables="tables"))
    text = jwt.encode(claims(**given), SECRET, "HS256")
    assert asyncio.run(tokens.caller(text)).tables == found
    assert secret(text).tables is None  # where no claim is set, it is not looked at


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    """An application that asks for tokens."""
    settings = settings_of(
        tmp_path,
        auth={"jwt_key": SECRET},
        serve={"parts": "search"},
        table={"uri": str(tmp_path / "none")},
    )
    return create_app(settings, ReadyMade(FakeModel()))


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        (dict, 401, "bad_token"),
        (lambda: {"authorization": "Basic dTpw"}, 401, "bad_token"),
        (lambda: {"authorization": "Bearer"}, 401, "bad_token"),
        (lambda: bearer("nonsense"), 401, "bad_token"),
        (lambda: bearer(token(exp=1)), 401, "bad_token"),
        (lambda: bearer(token("write")), 403, "no_scope"),
        (lambda: bearer(token("reader")), 403, "no_scope"),
        (lambda: bearer(token("read")), 503, "table_unavailable"),
        (lambda: {"authorization": f"bearer  {token()}"}, 503, "table_unavailable"),
    ],
)
def test_route(app: FastAPI, headers: Callable[[], dict[str, str]], status: int, code: str) -> None:
    """A route asks for a good token with its scope before it does anything."""
    # Made now: a token is good for a minute from when it is made.
    answer = ask(app, "POST", "/v1/search", json={"query": "x"}, headers=headers())
    found = problem(answer)
    assert found == (status, code)
    if status in {401, 403}:
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_token_comes_first(app: FastAPI) -> None:
    """Without a token a wrong body gets no other answer than a good one."""
    assert problem(ask(app, "POST", "/v1/search", content=b"{")) == (401, "bad_token")


@pytest.mark.parametrize("path", ["/health/live", "/metrics", "/openapi.json", "/docs"])
def test_open_routes(app: FastAPI, path: str) -> None:
    """What an operator needs takes no token."""
    assert ask(app, "GET", path).status_code == 200


def test_docs_load_nothing_from_elsewhere(app: FastAPI) -> None:
    """The page of all routes works without a way out: all that it names is here, and open."""
    page = ask(app, "GET", "/docs").text
    named = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert any(name.endswith("swagger-ui-bundle.js") for name in named)
    for name in named:
        assert name.startswith("/"), name
        assert not name.startswith("//"), name
        assert ask(app, "GET", name).status_code == 200, name
