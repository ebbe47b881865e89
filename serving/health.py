"""Whether the service lives and can work, and its metrics."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from headrace.errors import HeadraceError
from serving.openapi import problems
from serving.problems import ProblemError
from telemetry.http import HttpMetrics

__all__ = ["Readiness", "health_router"]

KEPT_S: Final = 1.0
"""For how long a verdict holds, so that many who ask cost no more than one."""

EXPOSITION: Final = "text/plain; version=0.0.4; charset=utf-8"

_METRICS_EXAMPLE: Final = 'headrace_http_accepted_records_total{topic="documents"} 12.0\n'


class Health(BaseModel):
    """That all is well."""

    status: str = Field("ok", examples=["ok"])


class Readiness:
    """Whether a worker can do what it is for.

    Args:
        checks: By what they look at; each raises `HeadraceError` where it is not well, and may
            block.
    """

    def __init__(self, checks: Mapping[str, Callable[[], None]]) -> None:
        self._checks = checks
        self._lock = asyncio.Lock()
        self._until = 0.0
        self._faults: dict[str, str] = {}

    async def faults(self) -> dict[str, str]:
        """What is not well, by what was looked at."""
        async with self._lock:
            if time.monotonic() >= self._until:
                found = await asyncio.gather(
                    *(asyncio.to_thread(_fault, check) for check in self._checks.values())
                )
                pairs = zip(self._checks, found, strict=True)
                self._faults = {name: fault for name, fault in pairs if fault is not None}
                self._until = time.monotonic() + KEPT_S
            return self._faults


def _fault(check: Callable[[], None]) -> str | None:
    try:
        check()
    except HeadraceError as error:
        return str(error)
    return None


def health_router(readiness: Readiness, metrics: HttpMetrics) -> APIRouter:
    """The routes for whoever runs the service; they need no token."""
    router = APIRouter(tags=["health"])

    @router.get("/health/live", summary="Whether the process answers")
    async def live() -> Health:
        """Always `ok`: that there is an answer is the answer."""
        return Health(status="ok")

    @router.get("/health/ready", summary="Whether it can work", responses=problems(503))
    async def ready() -> Health:
        """`ok` when the broker, the topics and the table are there as needed."""
        faults = await readiness.faults()
        if faults:
            told = "; ".join(f"{name}: {fault}" for name, fault in faults.items())
            raise ProblemError(503, "not_ready", told, {"Retry-After": "1"})
        return Health(status="ok")

    content: dict[str, Any] = {
        "text/plain": {"schema": {"type": "string"}, "example": _METRICS_EXAMPLE}
    }

    @router.get(
        "/metrics",
        summary="Prometheus' metrics",
        response_class=Response,
        responses={200: {"content": content}},
    )
    async def show_metrics() -> Response:
        """The metrics of all workers, in Prometheus' text format."""
        text = await asyncio.to_thread(metrics.exposition)
        return Response(text, media_type=EXPOSITION)

    return router
