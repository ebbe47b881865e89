"""`headrace token`: a bearer token for the HTTP services, signed with `auth.jwt_key`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import jwt

from headrace.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.settings import AuthSettings

__all__ = ["make_token"]

SCOPES: Final = ("read", "write")
HOUR_S: Final = 3600


def make_token(
    settings: AuthSettings, subject: str, scope: str, hours: float, tables: Sequence[str] = ()
) -> str:
    """A token as `serving.auth` takes it.

    Args:
        settings: With the key.
        subject: Whose it is.
        scope: What it allows: `read`, `write`, or both with a space between.
        hours: How long it is good.
        tables: The tables that its bearer may search; `*` alone for all.

    Raises:
        UsageError: There is no key to sign with, no such scope, or no claim for tables.
    """
    if settings.jwt_key is None:
        raise UsageError(
            "auth.jwt_key: not set, so there is nothing to sign with; tokens of auth.jwks_url are "
            "made by their issuer"
        )
    unknown = [name for name in scope.split() if name not in SCOPES]
    if unknown or not scope.split():
        raise UsageError(f"--scope: {scope}: is neither read nor write")
    if tables and settings.tables_claim is None:
        raise UsageError(
            "--table: auth.tables_claim is not set, so each token is good for all tables; set it, "
            "here and for headrace serve"
        )
    now = int(time.time())
    content: dict[str, object] = {
        "sub": subject,
        "scope": " ".join(scope.split()),
        "aud": settings.audience,
        "iat": now,
        "exp": now + int(hours * HOUR_S),
    }
    if settings.issuer is not None:
        content["iss"] = settings.issuer
    if tables and settings.tables_claim is not None:
        content[settings.tables_claim] = list(tables)
    return jwt.encode(content, settings.jwt_key.get_secret_value(), algorithm="HS256")
