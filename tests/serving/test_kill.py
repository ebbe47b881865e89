"""Accepted means kept: a server is killed under load, and what it accepted is all there."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from harness.process import Child, free_port, tail
from tests.brokers import read_all, topic_on
from tests.serving.services import until

if TYPE_CHECKING:
    from pathlib import Path

    from harness.broker import Broker

pytestmark = pytest.mark.kafka

CLIENTS = 8


def server(environment: dict[str, str], port: int, log: Path, *arguments: str) -> Child:
    """`headrace serve ingest`, as a user starts it, once it answers."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}
    command = [sys.executable, "-m", "cli.main", "serve", "ingest", "--port", str(port)]
    child = Child([*command, *arguments], log=log, environment={**kept, **environment})

    def answers() -> bool:
        assert child.alive, tail(log)
        try:
            return httpx.get(f"http://127.0.0.1:{port}/health/live").status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(answers, 100)
    except BaseException:
        child.kill()
        raise
    return child


class Load:
    """Clients that write on and on, and note what was accepted."""

    def __init__(self, url: str) -> None:
        self.accepted: dict[tuple[int, int], bytes] = {}
        self.sent = 0
        self._url = url
        self._ended = False

    async def run(self) -> None:
        """Write until it is to end."""
        async with httpx.AsyncClient(base_url=self._url, timeout=5) as client:
            await asyncio.gather(*(self._write(client, number) for number in range(CLIENTS)))

    def end(self) -> None:
        """Let it end."""
        self._ended = True

    async def _write(self, client: httpx.AsyncClient, number: int) -> None:
        while not self._ended:
            self.sent += 1
            identity = f"{number}-{self.sent}"
            body: dict[str, Any] = {"text": f"text of {identity}"}
            try:
                answer = await client.put(f"/v1/documents/{identity}", json=body)
            except httpx.TransportError:
                await asyncio.sleep(0.05)
                continue
            if answer.status_code == 202:
                place = answer.json()
                self.accepted[place["partition"], place["offset"]] = identity.encode()


def test_killed_under_load(broker: Broker, tmp_path: Path) -> None:
    """Killed by -9 three times under load, the server has lost nothing that it accepted."""
    topic = topic_on(broker, 2)
    port = free_port()
    environment = {
        "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "HEADRACE_SOURCE__TOPICS": topic,
    }
    load = Load(f"http://127.0.0.1:{port}")

    def disturb() -> None:
        for _ in range(3):
            child = server(environment, port, tmp_path / "server.log")
            before = len(load.accepted)
            until(lambda before=before: len(load.accepted) > before + 50)  # type: ignore[misc]
            child.kill()

    async def both() -> None:
        running = asyncio.create_task(load.run())
        try:
            await asyncio.to_thread(disturb)
        finally:
            load.end()
            await running

    asyncio.run(both())
    assert len(load.accepted) > 150
    held = {
        (partition, message.offset()): message.key()
        for partition in range(2)
        for message in read_all(broker, topic, partition)
    }
    lost = {place: key for place, key in load.accepted.items() if held.get(place) != key}
    assert not lost


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
    with server(environment, port, log, "--workers", workers) as child:
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
