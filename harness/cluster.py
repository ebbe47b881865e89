"""Three nodes of Apache Kafka on this machine, each with a replica of everything."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from harness.broker import Broker
from harness.process import HarnessError, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Cluster"]

NODES: Final = 3
START_S: Final = 120.0


class Cluster:
    """Nodes that can be killed one by one; the others go on with their work.

    As a context manager all are started on entry, stopped on exit.

    Args:
        folder: Where data and logs go.

    Attributes:
        nodes: The nodes, from node 1 on.
    """

    def __init__(self, folder: Path) -> None:
        controllers = [free_port() for _ in range(NODES)]
        self.nodes: Sequence[Broker] = [
            Broker(folder=folder / f"{node}", controllers=controllers, node=node)
            for node in range(1, NODES + 1)
        ]

    @property
    def bootstrap_servers(self) -> str:
        """The addresses for clients."""
        return ",".join(node.bootstrap_servers for node in self.nodes)

    def start(self) -> Self:
        """Start those that do not run, and wait until all answer.

        Raises:
            HarnessError: One does not.
        """
        deadline = time.monotonic() + START_S
        starting = [node for node in self.nodes if not node.alive]
        for node in starting:
            node.launch()
        for node in starting:
            node.await_answer(deadline)
        return self

    def kill(self) -> None:
        """End all by -9."""
        for node in self.nodes:
            node.kill()

    def restart(self) -> None:
        """Bring all back with the same data; stops first those that run."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """End all in good order."""
        for node in self.nodes:
            node.stop()

    def coordinator(self, group: str) -> Broker:
        """The node that keeps a group's offsets.

        Raises:
            HarnessError: The group has none in time.
        """
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            # One that takes over loads what there is first, and says so.
            with suppress(KafkaException):
                found = admin.describe_consumer_groups([group])[group].result(30).coordinator
                for node in self.nodes:
                    if found is not None and node.alive and node.port == found.port:
                        return node
            time.sleep(0.2)
        raise HarnessError(f"group {group}: no coordinator")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
