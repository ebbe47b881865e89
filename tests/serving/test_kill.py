"""Accepted means kept: a server is killed under load, and what it accepted is all there."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from harness.process import free_port, tail
from harness.server import start
from harness.web import Clients, compare_topic
from tests.brokers import read_all, topic_on
from tests.serving.services import until

if TYPE_CHECKING:
    from pathlib import Path

    from harness.broker import Broker

pytestmark = pytest.mark.kafka


def test_killed_under_load(broker: Broker, tmp_path: Path) -> None:
    """Killed by -9 three times under load, the server has lost nothing that it accepted."""
    topic = topic_on(broker, 2)
    port = free_port()
    environment = {
        "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "HEADRACE_SOURCE__TOPICS": topic,
    }
    with Clients(f"http://127.0.0.1:{port}", ["asked about a chair", "read of a lamp"]) as clients:
        for _ in range(3):
            child = start(environment, port, tmp_path / "server.log", "ingest")
            clients.wait_for(50)
            child.kill()
    assert len(clients.accepted) >= 150
    lost, _ = compare_topic(broker.bootstrap_servers, topic, clients.accepted)
    assert not lost
    [(place, key), *_] = clients.accepted.items()
    assert compare_topic(broker.bootstrap_servers, topic, {place: f"not {key}"})[0] == 1


@pytest.mark.parametrize("workers", ["1", "2"])
def test_asked_to_end(broker: Broker, tmp_path: Path, workers: str) -> None:
    """On SIGTERM the workers answer what is at hand and end; the metrics of several are one."""
    topic = topic_on(broker)
    port = free_port()
    environment = {
        "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "HEADRACE_SOURCE__TOPICS": topic,
    }
    log = tmp_path / "server.log"
    url = f"http://127.0.0.1:{port}"
    with start(environment, port, log, "ingest", "--workers", workers) as child:
        answers = [
            httpx.put(f"{url}/v1/documents/{i}", json={"text": "x"}).status_code for i in range(20)
        ]
        assert answers == [202] * 20
        counted = f'headrace_http_accepted_records_total{{topic="{topic}"}} 20.0'
        until(lambda: counted in httpx.get(f"{url}/metrics").text)
        began = time.monotonic()
        os.kill(child.pid, signal.SIGTERM)
        assert child.wait(20) == 0, tail(log)
        assert time.monotonic() - began < 15
    assert len(read_all(broker, topic)) == 20
    assert "Traceback" not in log.read_text()
