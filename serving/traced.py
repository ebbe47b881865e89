"""A span for each request; what is written for it, and its lines in the log, name that span."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from structlog.contextvars import bound_contextvars

from operators.traces import TRACEPARENT
from serving.observe import NO_ROUTE, Noted

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from telemetry.tracing import Tracing

__all__ = ["Traced", "traceparent_of"]

_CARRIED: Final = "headrace.traceparent"
"""Where a request's scope has the header of what is written for it."""

_UNTRACED: Final = ("/health/", "/metrics")
"""Paths that machines ask for again and again."""


class Traced:
    """Outermost of the layers about an application, where spans are sent."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, as ASGI has it."""
        if scope["type"] != "http" or scope["path"].startswith(_UNTRACED):
            await self._app(scope, receive, send)
            return
        span = self._tracing.request(scope["method"], _given(scope))
        scope[_CARRIED] = span.traceparent
        answer = Noted(send)
        try:
            with bound_contextvars(**span.ids):
                await self._app(scope, receive, answer)
        finally:
            span.end(getattr(scope.get("route"), "path_format", NO_ROUTE), answer.status)


def traceparent_of(request: Request) -> str | None:
    """The header of what is written for a request: of its span, or else as it came."""
    found: str | None = request.scope.get(_CARRIED, request.headers.get(TRACEPARENT))
    return found


def _given(scope: Scope) -> bytes | None:
    wanted = TRACEPARENT.encode()
    return next((bytes(value) for name, value in scope["headers"] if name == wanted), None)
