"""The command line run in this process, and a world in which a real flow has worked."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import structlog
from confluent_kafka import Producer

from cli.main import run
from harness.flow import Flow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from harness.broker import Broker

DOCUMENTS: list[dict[str, Any]] = [
    {"id": "bread", "text": "Baking bread with flour, yeast and butter in a hot oven"},
    {"id": "cake", "text": "A chocolate cake recipe", "metadata": {"price": 12.5, "kind": "food"}},
    {"id": "ship", "text": "The ship left the harbour at high tide", "metadata": {"price": 900}},
    {"id": "star", "text": "A telescope shows the galaxy and its stars"},
    {"id": "gone", "text": "A document that will be deleted"},
    {"id": "gone", "deleted": True},
]
BAD = {
    b"not-json": b"nope",
    b"empty": b'{"text": " "}',
    b"huge": b'{"text": "%s"}' % (b"x " * 1500),
}
MAX_RECORD_BYTES = 2048


@dataclass(frozen=True)
class Result:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, parsed."""
        return json.loads(self.out)


def headrace(env: Mapping[str, str], *arguments: str, stdin: bytes = b"") -> Result:
    """Run a command as the shell would, with no other settings than those given."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HEADRACE_", "BYTEWAX_"))}
    out, err = io.StringIO(), io.StringIO()
    handlers, level = logging.root.handlers[:], logging.root.level
    try:
        with (
            mock.patch.dict(os.environ, {**kept, **env}, clear=True),
            mock.patch("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin))),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = run(arguments)
    finally:
        logging.root.handlers[:], logging.root.level = handlers, level
        structlog.reset_defaults()
    return Result(code, out.getvalue(), err.getvalue())


def lines(*documents: Mapping[str, Any]) -> bytes:
    """Documents as JSON lines."""
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The settings of the real model as the reference runs it, with a cache of the session's."""
    return {
        "HEADRACE_MODEL__CACHE": str(tmp_path_factory.mktemp("models")),
        "HEADRACE_MODEL__RUNTIME": "onnxruntime",
        "HEADRACE_MODEL__PRECISION": "fp32",
    }


@pytest.fixture
def fresh(
    broker: Broker, model: Mapping[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> dict[str, str]:
    """The settings of a world with nothing in it: no topic, no table."""
    return settings(broker, model, tmp_path, request.node.name.replace("[", ".").rstrip("]"))


def settings(broker: Broker, model: Mapping[str, str], folder: Path, name: str) -> dict[str, str]:
    """Settings with topics, group and table of their own."""
    return {
        **model,
        "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "HEADRACE_KAFKA__APPLICATION_ID": name,
        "HEADRACE_SOURCE__TOPICS": f"{name}.documents",
        "HEADRACE_SOURCE__MAX_RECORD_BYTES": str(MAX_RECORD_BYTES),
        "HEADRACE_EMBEDDINGS__TOPIC": f"{name}.embeddings",
        "HEADRACE_DEAD_LETTERS__TOPIC": f"{name}.dead",
        **{
            f"HEADRACE_RECOMMEND__{topic.upper()}_TOPIC": f"{name}.shop-{topic}"
            for topic in ("views", "inventory", "embeddings", "users")
        },
        "HEADRACE_TABLE__URI": str(folder / "lancedb"),
        "HEADRACE_RECOVERY__SUSPECTS": str(folder / "suspects"),
        "HEADRACE_TABLE__COLUMNS": '{"price": "float64"}',
        "HEADRACE_METRICS__ADDRESS": "",
    }


def until(condition: Callable[[], bool], flow: Flow, timeout_s: float = 180) -> None:
    """Wait for something that a running flow is to bring about."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert flow.alive, flow.log_text()[-3000:]
        assert time.monotonic() < deadline, flow.log_text()[-3000:]
        time.sleep(0.2)


@dataclass(frozen=True)
class World:
    """Where a flow has run.

    Attributes:
        env: Its settings.
        recovery: Its recovery folder.
        status: What `status` told right after; later tests load more.
    """

    env: dict[str, str]
    recovery: Path
    status: dict[str, Any]


@pytest.fixture(scope="session")
def world(
    broker: Broker, model: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> World:
    """`DOCUMENTS` and `BAD` loaded and worked off by a flow, which has ended since."""
    folder = tmp_path_factory.mktemp("world")
    env = settings(broker, model, folder, "world")
    assert headrace(env, "topics", "create", "--partitions", "2").code == 0
    loaded = headrace(env, "load", "-", "--json", stdin=lines(*DOCUMENTS))
    assert loaded.json["sent"] == len(DOCUMENTS), loaded.err
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
    for key, value in BAD.items():
        producer.produce("world.documents", value, key, 0, headers=[("event_id", b"e1")])
    producer.flush()
    flow = Flow(env, recovery=folder / "recovery", log=folder / "flow.log")
    with flow:
        until(lambda: headrace(env, "status", "--json").json["lag"] == 0, flow)
        until(lambda: _table_is_done(env), flow)
    recovery = folder / "recovery"
    told = headrace(env, "status", "--recovery", str(recovery), "--json").json
    return World(env, recovery, told)


def _table_is_done(env: Mapping[str, str]) -> bool:
    told = headrace(env, "status", "--json").json
    return all(p["table"] == p["committed"] for p in told["partitions"])
