from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Gauge

from headrace.errors import HeadraceError
from telemetry.probes import Answer, serve


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, bytes]:
    """Status and body."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_probes_stand_beside_the_metrics() -> None:
    """A probe's path has its status and JSON, any other the metrics; a verdict is never kept."""
    registry = CollectorRegistry()
    Gauge("depth", "Depth.", registry=registry).set(3)
    answers = [
        Answer(well=True, told={"status": "ok"}),
        Answer(well=False, told={"reason": "stuck"}),
    ]
    port = serve("127.0.0.1", 0, registry, {"/health/live": lambda: answers.pop(0)})
    assert b"depth 3.0" in get(port, "/metrics")[1]
    told = [get(port, "/health/live") for _ in range(2)]
    assert [(status, json.loads(body)) for status, body in told] == [
        (200, {"status": "ok"}),
        (503, {"reason": "stuck"}),
    ]


def test_an_address_that_is_taken() -> None:
    """It is one line that names the setting."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(HeadraceError) as told:
            serve("127.0.0.1", port, CollectorRegistry(), {})
    assert str(told.value).startswith(f"metrics.address: 127.0.0.1:{port}: ")


def test_a_name_that_is_none() -> None:
    """An address that can't be resolved is the same one line."""
    with pytest.raises(HeadraceError, match=r"^metrics\.address: no\.such\.invalid:1: "):
        serve("no.such.invalid", 1, CollectorRegistry(), {})


def test_ipv6() -> None:
    """The family is that of the address."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 on this machine")
    try:
        port = serve("::1", 0, CollectorRegistry(), {})
    except HeadraceError:
        pytest.skip("no IPv6 loopback on this machine")
    assert get(port, "/metrics", "[::1]")[0] == 200
