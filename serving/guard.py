"""What a request must pass before any work is done for it: token, rate, content type, size."""

from __future__ import annotations

import math
import re
import time
from typing import TYPE_CHECKING, Any, Final

import orjson
from fastapi import APIRouter, Request, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from serving.auth import Caller, Tokens, refused
from serving.problems import ProblemError, beginning

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fastapi import Response
    from starlette.types import Message, Receive

__all__ = ["BEARER", "Guard", "caller_of", "check_table", "guarded"]

BEARER: Final = HTTPBearer(
    scheme_name="token",
    auto_error=False,
    bearerFormat="JWT",
    description="A JSON Web Token with the scope `read` or `write`.",
)
"""How a token is told in the OpenAPI document; `Guard` looks at it."""

_DIGITS: Final = re.compile(r"[0-9]{1,20}")


class Guard:
    """Lets requests in.

    Args:
        tokens: Tells callers; None lets in all.
        rate_limit: Requests of a user, such as `100/second`; empty for any number.
        body_bytes: Bytes of the largest body.

    Attributes:
        is_open: Whether all are let in.
    """

    def __init__(self, tokens: Tokens | None, rate_limit: str, body_bytes: int) -> None:
        self.body_bytes = body_bytes
        self.is_open = tokens is None
        self._tokens = tokens
        self._rate = parse(rate_limit) if rate_limit else None
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def admit(self, request: Request, scope: str) -> Caller:
        """Let a request in that needs a scope.

        Raises:
            ProblemError: It has no good token (401) or not the scope (403), or is one too many
                (429).
        """
        caller = await self._caller(request, scope)
        if self._rate is not None and not self._limiter.hit(self._rate, caller.subject):
            window = self._limiter.get_window_stats(self._rate, caller.subject)
            wait = max(1, math.ceil(window.reset_time - time.time()))
            told = f"more than {self._rate}"
            raise ProblemError(429, "too_many_requests", told, {"Retry-After": str(wait)})
        return caller

    async def _caller(self, request: Request, scope: str) -> Caller:
        if self._tokens is None:
            # Without tokens the address is all that tells users apart.
            return Caller(request.client.host if request.client else "", frozenset({scope}))
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise refused("there is no bearer token")
        caller = await self._tokens.caller(token.strip())
        if scope not in caller.scopes:
            told = f'Bearer realm="headrace", error="insufficient_scope", scope="{scope}"'
            detail = f"the token has no scope {scope}"
            raise ProblemError(403, "no_scope", detail, {"WWW-Authenticate": told})
        return caller


def guarded(scope: str, media: str = "application/json", **router: Any) -> APIRouter:  # noqa: ANN401
    """A router whose routes need a scope, and take bodies of one type.

    A body of JSON is bounded in size; one of another type bounds itself as it is read.
    """

    class Guarded(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()
            is_json = media == "application/json"
            expected = media if not is_json or self.body_field is not None else None

            async def pass_on(request: Request) -> Response:
                guard: Guard = request.app.state.guard
                request.state.caller = await guard.admit(request, scope)
                if expected is not None:
                    _check_type(request, expected)
                if is_json:
                    request = _bounded(request, guard.body_bytes)
                return await handle(request)

            return pass_on

    # The dependency only tells of the token; the route looks at it before a body is read.
    told = [Security(BEARER, scopes=[scope])]
    return APIRouter(route_class=Guarded, dependencies=told, **router)


def caller_of(request: Request) -> Caller:
    """Who asks, once a guarded route has let them in."""
    caller: Caller = request.state.caller
    return caller


def check_table(request: Request, table: str) -> None:
    """Refuse who may not search a table, whether there is one of that name or not.

    Raises:
        ProblemError: They may not (403).
    """
    if not caller_of(request).may_search(table):
        told = 'Bearer realm="headrace", error="insufficient_scope"'
        detail = f"table: {beginning(table)}: is not one that the token names"
        raise ProblemError(403, "table_denied", detail, {"WWW-Authenticate": told})


def _check_type(request: Request, expected: str) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != expected:
        told = f"content-type: {given or 'none'}: must be {expected}"
        raise ProblemError(415, "bad_content_type", told, {"Accept": expected})


def _bounded(request: Request, limit: int) -> Request:
    """The request, whose body ends in an error as soon as it is too large."""
    told = f"the body has more than {limit} bytes"
    declared = request.headers.get("content-length", "")
    # Of more digits than Python makes a number of, or of digits that are not ASCII's, it is wrong
    # in another way, and what arrives is counted in any case.
    if _DIGITS.fullmatch(declared) and int(declared) > limit:
        raise ProblemError(413, "too_large", told)
    return _JsonRequest(request.scope, _Counted(request.receive, limit, told))


class _JsonRequest(Request):
    """Reads JSON as the flow does: no NaN, no infinity, nothing but UTF-8."""

    async def json(self) -> Any:  # noqa: ANN401 - whatever it holds
        return orjson.loads(await self.body())


class _Counted:
    def __init__(self, receive: Receive, limit: int, told: str) -> None:
        self._receive = receive
        self._left = limit
        self._told = told

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise ProblemError(413, "too_large", self._told)
        return message
