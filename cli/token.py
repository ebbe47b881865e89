"""`headrace token`: a bearer token for the HTTP services, signed with `auth.jwt_key`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import jwt

from headrace.errors import UsageError

if TYPE_CHECKING:
    from flows.settings import AuthSettings

__all__ = ["make_token"]

SCOPES: Final = ("read", "write")
HOUR_S: Final = 3600


def make_token(settings: AuthSettings, subject: str, scope: str, hours: float) -> str:
    """A token as `serving.auth` takes it.

    Args:
        settings: With the key.
        subject: Whose it is.
        scope: What it allows: `read`, `write`, or both with a space between.
        hours: How long it is good.

    Raises:
        UsageError: There is no key to sign with, or no such scope.
    """
    if settings.jwt_key is None:
        raise UsageError(
            "auth.jwt_key: not set, so there is nothing to sign with; tokens of auth.jwks_url are "
            "made by their issuer"
        )
    unknown = [name for name in scope.split() if name not in SCOPES]
    if unknown or not scope.split():
        raise UsageError(f"--scope: {scope}: is neither read nor write")
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
    return jwt.encode(content, settings.jwt_key.get_secret_value(), algorithm="HS256")
