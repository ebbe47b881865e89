from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from clients import diagnosis
from clients.kafka import KafkaConfig
from harness.process import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(
    ("server", "place"),
    [
        ("kafka-1:9093", ("kafka-1", 9093)),
        (" SASL_SSL://kafka-1:9093", ("kafka-1", 9093)),
        ("kafka-1", ("kafka-1", 9092)),
        ("[::1]:9093", ("::1", 9093)),
    ],
)
def test_places(server: str, place: tuple[str, int]) -> None:
    """Addresses are read as librdkafka reads them."""
    assert diagnosis._place(server) == place


def test_nobody_there() -> None:
    """Where nothing listens, that is what is said."""
    assert "refused" in KafkaConfig(f"{HOST}:{free_port()}", "app").diagnosis()


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and says nothing."""
    with socket.create_server((HOST, 0)) as server:
        held: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=take, daemon=True).start()
        yield f"{HOST}:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()


def test_a_silent_broker(silent: str) -> None:
    """A broker that says nothing is listened to for no longer than an outage may last."""
    started = time.monotonic()
    assert KafkaConfig(silent, "app", outage_s=0.5).diagnosis() == ""
    assert time.monotonic() - started < 10
