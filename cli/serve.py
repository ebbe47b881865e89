"""`headrace serve`: the HTTP services."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from headrace.errors import UsageError
from serving.server import run
from telemetry import logs

if TYPE_CHECKING:
    from flows.settings import Settings

__all__ = ["serve"]


def serve(settings: Settings, part: str | None, port: int | None, workers: int | None) -> int:
    """Serve until a signal says that this is all.

    Args:
        settings: The settings.
        part: `ingest` or `search`; what the settings say unless given.
        port: Where to listen; as part.
        workers: How many processes; as part.

    Returns:
        The exit code.

    Raises:
        HeadraceError: It can't begin.
    """
    if part not in {None, "ingest", "search"}:
        raise UsageError(f"PART: {part}: is neither ingest nor search")
    asked = {"parts": part and (part,), "port": port, "workers": workers}
    chosen = {name: value for name, value in asked.items() if value is not None}
    logs.configure(level=logging.INFO)
    return run(settings.model_copy(update={"serve": settings.serve.model_copy(update=chosen)}))
