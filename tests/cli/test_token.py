from __future__ import annotations

import asyncio
from typing import Any

import jwt
import pytest

from flows.settings import AuthSettings
from serving.auth import tokens_of
from serving.problems import ProblemError
from tests.cli.conftest import headrace

KEY = "a key that is long enough for HS256"
ENV = {"HEADRACE_AUTH__JWT_KEY": KEY, "HEADRACE_AUTH__ISSUER": "us"}


def caller_of(token: str, **settings: Any) -> tuple[str, frozenset[str]]:
    """Who a server with these settings takes the token's bearer for."""
    tokens = tokens_of(AuthSettings(jwt_key=KEY, issuer="us", **settings))
    assert tokens is not None
    found = asyncio.run(tokens.caller(token))
    return found.subject, found.scopes


def test_a_server_takes_it() -> None:
    """A token is good for a server with the same settings, with the scopes asked for."""
    done = headrace(ENV, "token", "me")
    assert done.code == 0, done.err
    assert caller_of(done.out.strip()) == ("me", frozenset({"read", "write"}))
    done = headrace(ENV, "token", "me", "--scope", "read")
    assert caller_of(done.out.strip()) == ("me", frozenset({"read"}))
    with pytest.raises(ProblemError):
        caller_of(done.out.strip(), audience="others")


def test_tables() -> None:
    """A token names the tables that it is given, under the claim of the settings."""
    env = {**ENV, "HEADRACE_AUTH__TABLES_CLAIM": "tables"}
    for options, found in (
        ([], []),
        (["--table", "docs_x", "--table", "docs_y"], ["docs_x", "docs_y"]),
        (["--table", "*"], ["*"]),
    ):
        done = headrace(env, "token", "me", *options)
        assert done.code == 0, done.err
        content = jwt.decode(done.out.strip(), KEY, ["HS256"], audience="headrace")
        assert content.get("tables", []) == found
    done = headrace(ENV, "token", "me", "--table", "docs_x")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("headrace: --table: auth.tables_claim is not set")


def test_nothing_to_sign_with() -> None:
    """Without a key, or with a scope that there is none of, the line names it."""
    done = headrace({}, "token", "me")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("headrace: auth.jwt_key: not set")
    done = headrace(ENV, "token", "me", "--scope", "admin")
    assert done.code == 2
    assert "--scope: admin" in done.err
