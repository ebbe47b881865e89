"""Requests in traces, without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import capture_logs

from serving import problems
from serving.app import ReadyMade, create_app
from telemetry.limited import LimitedLog
from telemetry.tracing import Tracing
from tests.serving.services import FakeModel, ask, settings_of

if TYPE_CHECKING:
    from pathlib import Path

    from fastapi import FastAPI

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Server:
    """An application that searches a table which is not there, and the spans of its requests."""

    def __init__(self, folder: Path, sample: float) -> None:
        self.kept = InMemorySpanExporter()
        self.tracing = Tracing("", sample, "test", self.kept)
        uri = str(folder / "none")
        settings = settings_of(folder, serve={"parts": "search"}, table={"uri": uri})
        self.app: FastAPI = create_app(settings, ReadyMade(FakeModel(), self.tracing))

    def search(self, flags: str) -> None:
        """Ask, in a trace with those flags."""
        header = {"traceparent": f"00-{TRACE}-{CALLER}-{flags}"}
        answer = ask(self.app, "POST", "/v1/search", json={"query": "q"}, headers=header)
        assert answer.status_code == 503


def test_lines_of_a_request_name_its_span(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is logged while a request is answered has its trace's id and its span's."""
    limited = LimitedLog(structlog.get_logger(), every_s=0)
    monkeypatch.setattr(problems, "limited", limited)
    server = Server(tmp_path, 0.0)
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        server.search("01")
    [span] = server.kept.get_finished_spans()
    assert span.name == "POST /v1/search"
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.status.status_code.name == "ERROR"
    [line] = [line for line in lines if line["event"] == "request failed"]
    assert line["trace_id"] == TRACE
    assert line["span_id"] == f"{span.context.span_id:016x}"
    assert structlog.contextvars.get_contextvars() == {}


def test_what_is_not_sampled_makes_no_span(tmp_path: Path) -> None:
    """An unsampled parent is not recorded, whatever the share of traces that begin here is."""
    server = Server(tmp_path, 1.0)
    server.search("00")
    assert server.kept.get_finished_spans() == ()


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
def test_what_machines_ask_makes_no_span(tmp_path: Path, path: str) -> None:
    """Probes and scrapes are no traces, though all that begin here are recorded."""
    server = Server(tmp_path, 1.0)
    ask(server.app, "GET", path)
    assert server.kept.get_finished_spans() == ()


def test_a_trace_begins_here(tmp_path: Path) -> None:
    """A request without a parent is recorded by share, under the route that took it."""
    server = Server(tmp_path, 1.0)
    ask(server.app, "GET", "/no/such/page")
    [span] = server.kept.get_finished_spans()
    assert (span.name, span.parent) == ("GET none", None)
