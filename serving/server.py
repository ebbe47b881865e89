"""The server: binds the port, and runs one worker here or several in processes of their own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

import structlog
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from flows.access import encoder_of
from headrace.errors import HeadraceError, UsageError
from serving.app import create_app
from telemetry import logs
from telemetry.http import SHARED_FOLDER_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from fastapi import FastAPI

    from flows.settings import Settings

__all__ = ["run"]

log = structlog.get_logger(__name__)

LOOPBACK: Final = "127.0.0.1"
ANYWHERE: Final = "0.0.0.0"  # noqa: S104 - only with tokens
BACKLOG: Final = 2048
KEEP_ALIVE_S: Final = 15
WORKER_HANGS_S: Final = 120
"""Seconds without a sign of life after which a worker is ended: on a busy machine it may take most
of a minute until it has loaded what it needs."""

GRACE_S: Final = 5
"""Seconds beyond the delivery time-out that a request at hand has when the server is to end."""


@dataclass(frozen=True)
class _Worker:
    """Makes the application in a worker's process."""

    settings: Settings

    def __call__(self) -> FastAPI:
        logs.configure()
        try:
            return create_app(self.settings)
        except HeadraceError as error:
            print(f"headrace: {error}", file=sys.stderr)  # noqa: T201 - what a person reads
            # The code by which a worker says that to start it again is of no use.
            sys.exit(STARTUP_FAILURE)


def run(settings: Settings) -> int:
    """Serve until a signal says that this is all.

    Returns:
        The exit code.

    Raises:
        HeadraceError: The address is taken, a certificate can't be read, or the model can't be
            had.
    """
    serve = settings.serve
    _check_tls(settings)
    with _bound(settings) as listening:
        where = "{}:{}".format(*listening.getsockname()[:2])
        log.info("serving", stage="http", address=where, parts=serve.parts, workers=serve.workers)
        # A signal ends the server in good order, and that is how it ends: not by the signal.
        signal.signal(signal.SIGTERM, _end)
        if serve.workers == 1:
            app = create_app(settings)
            server = uvicorn.Server(_config(settings, lambda: app))
            server.run(sockets=[listening])
            return 0 if server.started else 1
        return _run_several(settings, listening)


def _end(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(0)


def _run_several(settings: Settings, listening: socket.socket) -> int:
    if "search" in settings.serve.parts:
        # Found, built and measured once, and not by each worker at the same time.
        encoder_of(settings)
    with _shared_metrics():
        supervisor = Multiprocess(_config(settings, _Worker(settings)), [listening])
        supervisor.run()
    failed = any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes)
    return 1 if failed else 0


def _config(settings: Settings, app: object) -> uvicorn.Config:
    serve = settings.serve
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        factory=True,
        workers=serve.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_worker_healthcheck=WORKER_HANGS_S,
        timeout_graceful_shutdown=int(serve.delivery_timeout_s) + GRACE_S,
        ssl_certfile=serve.tls_cert,
        ssl_keyfile=None if serve.tls_key is None else str(serve.tls_key),
        ssl_ca_certs=None if serve.tls_client_ca is None else str(serve.tls_client_ca),
        ssl_cert_reqs=ssl.CERT_NONE if serve.tls_client_ca is None else ssl.CERT_REQUIRED,
    )


@contextmanager
def _bound(settings: Settings) -> Iterator[socket.socket]:
    """A socket that listens where the settings say.

    Raises:
        HeadraceError: The address is taken, or is none of this machine's.
    """
    serve = settings.serve
    host = serve.host or (ANYWHERE if settings.auth.required else LOOPBACK)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, serve.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise HeadraceError(
            f"serve.host, serve.port: {host}:{serve.port}: {error.strerror or error}; "
            "choose another"
        ) from error
    with listening:
        yield listening


def _check_tls(settings: Settings) -> None:
    serve = settings.serve
    if serve.tls_cert is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(serve.tls_cert, serve.tls_key, password="")
    except (OSError, ValueError) as error:
        name = f"serve.tls_cert, serve.tls_key: {serve.tls_cert}, {serve.tls_key}"
        raise UsageError(f"{name}: {error}") from error
    try:
        if serve.tls_client_ca is not None:
            context.load_verify_locations(serve.tls_client_ca)
    except (OSError, ValueError) as error:
        raise UsageError(f"serve.tls_client_ca: {serve.tls_client_ca}: {error}") from error


@contextmanager
def _shared_metrics() -> Iterator[None]:
    """A folder in which workers keep their metrics, so that any of them can show all."""
    folder = tempfile.mkdtemp(prefix="headrace-metrics-")
    os.environ[SHARED_FOLDER_VARIABLE] = folder
    try:
        yield
    finally:
        del os.environ[SHARED_FOLDER_VARIABLE]
        shutil.rmtree(folder, ignore_errors=True)
