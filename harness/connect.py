"""A worker of Kafka Connect with Debezium's connector for PostgreSQL.

Its jars are those of `make debezium`.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any, Final, Self

from harness.process import HOST, ROOT, Child, HarnessError, free_port, java, tail

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from harness.broker import Broker
    from harness.cluster import Cluster

__all__ = ["JARS", "Connect", "connector"]

JARS: Final = ROOT / "build" / "debezium"
JAVA_OPTS: Final = ("-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
START_S: Final = 120.0
STOP_S: Final = 30.0

_LOG_CONFIGURATION: Final = ROOT / "deploy" / "kafka" / "log4j2.properties"

_SETTINGS: Final = """\
bootstrap.servers={servers}
group.id={name}
listeners=http://{host}:{port}
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
config.storage.topic={name}.configs
offset.storage.topic={name}.offsets
status.storage.topic={name}.status
config.storage.replication.factor=1
offset.storage.replication.factor=1
status.storage.replication.factor=1
offset.storage.partitions=1
status.storage.partitions=1
# Events and how far the log was read, in one transaction.
exactly.once.source.support=enabled
plugin.discovery=service_load
# A worker that was killed is missed soon, and its tasks are given to the next at once.
session.timeout.ms=6000
heartbeat.interval.ms=1000
scheduled.rebalance.max.delay.ms=0
"""


class Connect:
    """One worker, which can be killed and started again.

    As a context manager it is started on entry, stopped on exit.

    Args:
        broker: A running broker.
        folder: Where settings and logs go.
        name: Of its group, and what its topics' names begin with.
    """

    def __init__(self, broker: Broker | Cluster, folder: Path, name: str = "connect") -> None:
        self._servers = broker.bootstrap_servers
        self._folder = folder
        self._name = name
        self._port = free_port()
        self._child: Child | None = None

    @property
    def log(self) -> Path:
        """Its log file."""
        return self._folder / "connect.log"

    def start(self) -> Self:
        """Start it, and wait until it answers.

        Raises:
            HarnessError: The jars are missing, or it does not answer in time.
        """
        if not any(JARS.glob("debezium-connector-postgres-*.jar")):
            raise HarnessError(f"jars {JARS}: no Debezium there; run `make debezium`")
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = self._folder / "worker.properties"
        settings.write_text(
            _SETTINGS.format(servers=self._servers, name=self._name, host=HOST, port=self._port)
        )
        command: list[str | Path] = [java(), *JAVA_OPTS]
        command += [
            f"-Dlog4j2.configurationFile={_LOG_CONFIGURATION}",
            f"-Dheadrace.log={self.log}",
        ]
        command += ["-cp", f"{JARS}/*", "org.apache.kafka.connect.cli.ConnectDistributed", settings]
        self._child = Child(command, log=self._folder / "jvm.log")
        self._wait("GET", "/connectors", None, {200})
        return self

    def create(self, name: str, settings: Mapping[str, str]) -> None:
        """Start a connector, and wait until its task runs.

        Raises:
            HarnessError: Its settings are refused, or it fails.
        """
        self._wait("PUT", f"/connectors/{name}/config", settings, {200, 201})
        self.await_running(name)

    def await_running(self, name: str) -> None:
        """Wait until a connector's task runs.

        Raises:
            HarnessError: It fails, or does not run in time.
        """
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with suppress(OSError, HTTPException, ValueError):  # no JSON while it starts
                status, told = self._ask("GET", f"/connectors/{name}/status")
                tasks = told.get("tasks", []) if status == 200 else []
                if any(task["state"] == "FAILED" for task in tasks):
                    raise HarnessError(f"connector {name}: {tasks[0].get('trace', '')[:2000]}")
                if tasks and all(task["state"] == "RUNNING" for task in tasks):
                    return
            time.sleep(0.2)
        raise HarnessError(f"connector {name}: does not run: {tail(self.log, 5)}")

    def kill(self) -> None:
        """End it by -9."""
        if self._child is not None:
            self._child.kill()

    def stop(self) -> None:
        """End it in good order."""
        if self._child is not None:
            self._child.terminate(STOP_S)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait(self, method: str, path: str, body: Mapping[str, str] | None, good: set[int]) -> None:
        """Ask again until it answers well: it is busy with its group at first."""
        deadline = time.monotonic() + START_S
        told = ""
        while time.monotonic() < deadline:
            if self._child is None or not self._child.alive:
                raise HarnessError(f"connect: ended: {tail(self._folder / 'jvm.log', 5)}")
            with suppress(OSError, HTTPException, ValueError):  # no JSON while it starts
                status, answer = self._ask(method, path, body)
                if status in good:
                    return
                told = str(answer)
                if status == 400:
                    break
            time.sleep(0.2)
        raise HarnessError(f"connect: {method} {path}: {told or 'no answer'}")

    def _ask(
        self, method: str, path: str, body: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        connection = HTTPConnection(HOST, self._port, timeout=30)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        finally:
            connection.close()


def connector(prefix: str, *, schemas: bool = False) -> dict[str, str]:
    """Settings of a connector of Debezium's, without the database and its tables.

    Args:
        prefix: What the names of its topics begin with.
        schemas: Whether each event comes with its schema.
    """
    told = str(schemas).lower()
    return {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "plugin.name": "pgoutput",
        "topic.prefix": prefix,
        "slot.name": prefix.replace("-", "_"),
        "publication.name": prefix.replace("-", "_"),
        "publication.autocreate.mode": "filtered",
        "exactly.once.support": "required",
        "key.converter": "org.apache.kafka.connect.json.JsonConverter",
        "key.converter.schemas.enable": told,
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.schemas.enable": told,
        "topic.creation.default.replication.factor": "1",
        "topic.creation.default.partitions": "1",
        "poll.interval.ms": "50",
    }
