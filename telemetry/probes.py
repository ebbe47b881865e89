"""Where a flow's process is asked how it is: metrics, and whether it lives and is ready."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import orjson
from prometheus_client import make_wsgi_app

from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from prometheus_client import CollectorRegistry

__all__ = ["Answer", "Probe", "serve"]


@dataclass(frozen=True, slots=True)
class Answer:
    """How something is.

    Attributes:
        well: Whether it is as it should be.
        told: More about it, for a person.
    """

    well: bool
    told: Mapping[str, object]


Probe = Callable[[], Answer]


def serve(address: str, port: int, registry: CollectorRegistry, probes: Mapping[str, Probe]) -> int:
    """Serve metrics and probes from a daemon thread.

    Args:
        address: Where to listen.
        port: On which port; 0 takes a free one.
        registry: The metrics; they are served at every path that is no probe's.
        probes: By path. Each is called in a thread of its request, and must not block.

    Returns:
        The port.

    Raises:
        HeadraceError: The address is taken or isn't this machine's.
    """
    app = _app(make_wsgi_app(registry), probes)
    try:
        server = make_server(address, port, app, _server_class(address, port), _Silent)
    except OSError as error:
        raise HeadraceError(
            f"metrics.address: {address}:{port}: {error.strerror or error}; choose another"
        ) from error
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server.server_port


def _app(metrics: WSGIApplication, probes: Mapping[str, Probe]) -> WSGIApplication:
    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        probe = probes.get(environ.get("PATH_INFO", ""))
        if probe is None:
            return metrics(environ, start)
        answer = probe()
        status = HTTPStatus.OK if answer.well else HTTPStatus.SERVICE_UNAVAILABLE
        start(
            f"{status.value} {status.phrase}",
            [("Content-Type", "application/json"), ("Cache-Control", "no-store")],
        )
        return [orjson.dumps(answer.told)]

    return app


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each request, which keeps nothing from ending."""

    daemon_threads = True


def _server_class(address: str, port: int) -> type[_Server]:
    """A server for the address's family, which may be IPv6."""
    found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)

    class Bound(_Server):
        address_family = found[0][0]

    return Bound


class _Silent(WSGIRequestHandler):
    """Writes no line for each request, and gives up on who sends none.

    Attributes:
        timeout: After so many seconds.
    """

    timeout = 10

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its own name
        """Nothing."""
