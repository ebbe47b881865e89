"""`headrace serve` in a process of its own, as a user starts it."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import httpx

from harness.process import HOST, Child, HarnessError, bare_environment, free_port, tail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

__all__ = ["service", "start", "until"]

START_S: Final = 120.0
REQUEST_S: Final = 60.0


@contextmanager
def service(
    folder: Path, environment: Mapping[str, str], *arguments: str
) -> Iterator[httpx.Client]:
    """A server on a port of its own, its log in a folder; gives a client once it answers.

    Raises:
        HarnessError: It ended, or does not answer.
    """
    port = free_port()
    with (
        start(environment, port, folder / "server.log", *arguments),
        httpx.Client(base_url=f"http://{HOST}:{port}", timeout=REQUEST_S) as client,
    ):
        yield client


def start(environment: Mapping[str, str], port: int, log: Path, *arguments: str) -> Child:
    """A server, once it answers.

    Args:
        environment: Its settings.
        port: Where it listens.
        log: What its output is added to.
        arguments: Further ones of the command, such as `ingest`.

    Raises:
        HarnessError: It ended, or does not answer.
    """
    command = [sys.executable, "-m", "cli.main", "serve", *arguments, "--port", str(port)]
    child = Child(command, log=log, environment={**bare_environment(), **environment})
    try:
        until(lambda: _answers(child, port), START_S, "server: does not answer")
    except BaseException:
        child.kill()
        raise
    return child


def until(done: Callable[[], bool], timeout_s: float, fault: str) -> None:
    """Wait until something holds.

    Raises:
        HarnessError: It did not in time; begins with `fault`.
    """
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            raise HarnessError(f"{fault} within {timeout_s:.0f} s")
        time.sleep(0.05)


def _answers(child: Child, port: int) -> bool:
    if not child.alive:
        raise HarnessError(f"server: ended: {tail(child.log, 5)}")
    try:
        return httpx.get(f"http://{HOST}:{port}/health/live").status_code == 200
    except httpx.TransportError:
        return False
