"""Counts and times each request, by the route that took it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from telemetry.http import HttpMetrics

__all__ = ["NO_ROUTE", "Noted", "Observed"]

NO_ROUTE: Final = "none"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Noted:
    """Passes an answer on.

    Attributes:
        status: The answer's; 500 while there is none.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 500

    async def __call__(self, message: Message) -> None:
        """Pass a piece of it on, as ASGI has it."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


class Observed:
    """Outermost of the layers about an application."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        answer = Noted(send)
        try:
            await self._app(scope, receive, answer)
        finally:
            # The route's pattern, not the path: a label for each path would have no bound.
            route = getattr(scope.get("route"), "path_format", NO_ROUTE)
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.labels(method, route, str(answer.status)).inc()
            took = time.perf_counter() - began
            self._metrics.latency.labels(route, str(answer.status)).observe(took * 1000)
