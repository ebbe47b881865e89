"""`headrace serve` as a process, for tests that look at it from outside."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx

from harness.process import Child, free_port, tail
from tests.samples import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@contextmanager
def service(folder: Path, environment: Mapping[str, str]) -> Iterator[httpx.Client]:
    """`headrace serve` with those settings, its log in a folder; gives a client once it answers."""
    port = free_port()
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}
    log = folder / "server.log"
    with (
        Child(
            [sys.executable, "-m", "cli.main", "serve", "--port", str(port)],
            log=log,
            environment={**kept, **environment},
        ) as child,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):

        def answers() -> bool:
            assert child.alive, tail(log)
            try:
                return client.get("/health/live").status_code == 200
            except httpx.TransportError:
                return False

        until(answers, 60)
        yield client
