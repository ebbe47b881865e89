"""Bearer tokens to callers: JSON Web Tokens, checked by PyJWT.

Which algorithms are taken follows from the settings and never from the token: HS256 where there is
a secret, RS256 and ES256 where there are public keys. So a public key is no secret to sign with,
and `none` is no algorithm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import jwt
from jwt.exceptions import (
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAudienceError,
    InvalidIssuerError,
    InvalidTokenError,
    PyJWTError,
)

from serving.keys import KeySet, fetching
from serving.problems import ProblemError

if TYPE_CHECKING:
    from jwt import PyJWK

    from flows.settings import AuthSettings

__all__ = ["Caller", "Claims", "Tokens", "tokens_of"]

SECRET_ALGORITHMS: Final = ("HS256",)
PUBLIC_ALGORITHMS: Final = ("RS256", "ES256")
REQUIRED: Final = ("exp", "sub")
MAX_TOKEN_CHARACTERS: Final = 8192

ALL_TABLES: Final = frozenset({"*"})
"""What stands in place of names where all tables may be searched; beside names it is one."""

_REASONS: Final[tuple[tuple[type[InvalidTokenError], str], ...]] = (
    (ExpiredSignatureError, "the token has expired"),
    (ImmatureSignatureError, "the token is not valid yet"),
    (InvalidAudienceError, "the token is for another audience"),
    (InvalidIssuerError, "the token is of another issuer"),
)


@dataclass(frozen=True)
class Caller:
    """Who asks, and what they may do.

    Attributes:
        subject: Who.
        scopes: What they may do.
        tables: The names of the tables that they may search; None for any.
    """

    subject: str
    scopes: frozenset[str]
    tables: frozenset[str] | None = None

    def may_search(self, table: str) -> bool:
        """Whether they may search a table, if there is one of that name."""
        return self.tables is None or table in self.tables


@dataclass(frozen=True)
class Claims:
    """What a token must say beside its signature.

    Attributes:
        audience: What `aud` must hold.
        issuer: What `iss` must be; None for any.
        leeway_s: Seconds that clocks may differ.
        tables: The claim with the names of the tables that a bearer may search; None where all
            may be searched.
    """

    audience: str
    issuer: str | None
    leeway_s: float
    tables: str | None = None


class Tokens(Protocol):
    """Tells who a token is of."""

    async def caller(self, token: str) -> Caller:
        """The caller whose token this is.

        Raises:
            ProblemError: The token is not good (401).
            HeadraceError: The keys to check it with can't be had.
        """
        ...


def tokens_of(settings: AuthSettings) -> Tokens | None:
    """How tokens are checked; None where the settings ask for none."""
    claims = Claims(settings.audience, settings.issuer, settings.leeway_s, settings.tables_claim)
    if settings.jwt_key is not None:
        return SecretTokens(settings.jwt_key.get_secret_value(), claims)
    if settings.jwks_url is not None:
        return PublicTokens(KeySet(fetching(settings.jwks_url), settings.jwks_cache_s), claims)
    return None


class SecretTokens:
    """Tokens that are signed with a secret which issuer and server share."""

    def __init__(self, key: str, claims: Claims) -> None:
        self._key = key
        self._claims = claims

    async def caller(self, token: str) -> Caller:
        """See `Tokens`."""
        return _caller(token, self._key, SECRET_ALGORITHMS, self._claims)


class PublicTokens:
    """Tokens that are signed with one of an issuer's private keys."""

    def __init__(self, keys: KeySet, claims: Claims) -> None:
        self._keys = keys
        self._claims = claims

    async def caller(self, token: str) -> Caller:
        """See `Tokens`."""
        try:
            header = jwt.get_unverified_header(token)
        except PyJWTError:
            raise refused("the token can't be read") from None
        # Before the keys are asked for, which may take a call to the issuer.
        if header.get("alg") not in PUBLIC_ALGORITHMS:
            raise refused("the token is signed by an algorithm that is not taken")
        key = await self._keys.key(header.get("kid"))
        # A key set may hold keys for other ends; one by which anybody could sign is none of ours.
        if key is None or key.algorithm_name != header["alg"]:
            raise refused("the token's key is not one of the issuer's")
        return _caller(token, key, PUBLIC_ALGORITHMS, self._claims)


def refused(detail: str) -> ProblemError:
    """A token that is not good, or none."""
    return ProblemError(401, "bad_token", detail, {"WWW-Authenticate": 'Bearer realm="headrace"'})


def _caller(token: str, key: str | PyJWK, algorithms: tuple[str, ...], claims: Claims) -> Caller:
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise refused("the token is too long")
    try:
        content = jwt.decode(
            token,
            key,
            algorithms=list(algorithms),
            audience=claims.audience,
            issuer=claims.issuer,
            leeway=claims.leeway_s,
            options={"require": list(REQUIRED)},
        )
    except PyJWTError as error:
        raise refused(_reason(error)) from None
    return Caller(str(content["sub"]), _scopes(content), _tables(content, claims.tables))


def _reason(error: PyJWTError) -> str:
    for kind, told in _REASONS:
        if isinstance(error, kind):
            return told
    return "the token is not good"


def _scopes(content: dict[str, Any]) -> frozenset[str]:
    """The scopes, as OAuth's `scope` has them, or as some issuers' `scp`."""
    found = content.get("scope", content.get("scp", ""))
    return frozenset(found.split()) if isinstance(found, str) else _texts(found)


def _tables(content: dict[str, Any], claim: str | None) -> frozenset[str] | None:
    """The tables that may be searched; none by a token that does not say."""
    if claim is None:
        return None
    found = content.get(claim)
    names = frozenset({found}) if isinstance(found, str) else _texts(found)
    return None if names == ALL_TABLES else names


def _texts(found: object) -> frozenset[str]:
    """Those parts of a list that are text; nothing of what is no list."""
    parts = found if isinstance(found, list) else []
    return frozenset(part for part in parts if isinstance(part, str))
