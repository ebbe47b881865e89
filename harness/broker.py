"""A real Apache Kafka node on this machine: `python -m harness.broker --port 9092`.

Broker and controller run in one JVM (KRaft), on the loopback address only, from the jars that
`make install` fetches. The settings start it quickly and keep it small; what decides about
durability and transactions is left as Kafka ships it, apart from the single replica.
"""

import argparse
import contextlib
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from harness.link import Link
from harness.process import HOST, ROOT, Child, HarnessError, free_port, is_free, java, tail
from headrace.errors import HeadraceError

__all__ = ["JARS", "JAVA_OPTS", "Broker", "Listener", "Security", "main"]

JARS = ROOT / "build" / "jars" / "kafka"
# The serial collector and the first compiler alone start fastest and leave the cores to the flow.
JAVA_OPTS = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

_LOG_CONFIGURATION = ROOT / "deploy" / "kafka" / "log4j2.properties"
_CLUSTER_ID = "aGVhZHJhY2UtY2x1c3Rlcg"  # any 16 bytes in base64
_START_S = 60.0
_STOP_S = 20.0

_SETTINGS = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners={listeners},CONTROLLER://{host}:{controller_port}
advertised.listeners={advertised}
listener.security.protocol.map={protocols},CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
# A replica of everything on each node. One may be missing, where there are several.
default.replication.factor={nodes}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={nodes}
transaction.state.log.replication.factor={nodes}
transaction.state.log.min.isr={in_sync}
share.coordinator.state.topic.replication.factor={nodes}
share.coordinator.state.topic.min.isr={in_sync}
# Few internal partitions, which start sooner.
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
# Transactions of killed producers that nobody fences end soon after their own time-out.
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
# After a kill, the controller holds the dead registration for this long; a broker on a machine with
# no core left for it is fenced after as long.
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=500
log.cleaner.backoff.ms=500
log.cleaner.dedupe.buffer.size=8388608
log.cleaner.io.buffer.size=131072
num.network.threads=2
num.io.threads=4
background.threads=2
"""


_SCRAM = "SCRAM-SHA-512"

_LISTENER = """\
listener.name.{name}.ssl.keystore.type=PEM
listener.name.{name}.ssl.keystore.location={identity}
"""

_AUTHORITIES = """\
listener.name.{name}.ssl.client.auth=required
listener.name.{name}.ssl.truststore.type=PEM
listener.name.{name}.ssl.truststore.location={authorities}
listener.name.{name}.ssl.principal.mapping.rules=RULE:^CN=([^,]+).*$/$1/,DEFAULT
"""

_PASSWORDS = """\
listener.name.{name}.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.{name}.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
"""

_RIGHTS = """\
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""


@dataclass(frozen=True)
class Listener:
    """A port at which clients are met by TLS.

    Attributes:
        name: Its name, in capitals.
        identity: A PEM file with the broker's key (PKCS #8) and its certificates.
        authorities: A PEM file: clients must have a certificate of one of these. The
            common name in it is their user's.
        passwords: Whether clients must log in, by SCRAM-SHA-512.
        port: The port.
    """

    name: str
    identity: Path
    authorities: Path | None = None
    passwords: bool = False
    port: int = field(default_factory=free_port)

    @property
    def address(self) -> str:
        """The address for clients."""
        return f"{HOST}:{self.port}"

    @property
    def protocol(self) -> str:
        """Kafka's name of how it is spoken to."""
        return "SASL_SSL" if self.passwords else "SSL"

    def settings(self) -> str:
        """The lines of the broker's settings file."""
        lines = _LISTENER
        if self.authorities is not None:
            lines += _AUTHORITIES
        if self.passwords:
            lines += _PASSWORDS
        return lines.format(
            name=self.name.lower(), identity=self.identity, authorities=self.authorities
        )


@dataclass(frozen=True)
class Security:
    """Listeners beside the plain one, and users who have only the rights that they are given.

    Whoever has no name has every right: who comes by the plain listener, or by TLS alone.

    Attributes:
        listeners: The listeners.
        passwords: The users that log in, and their passwords.
    """

    listeners: Sequence[Listener]
    passwords: Mapping[str, str] = field(default_factory=dict, repr=False)

    def settings(self) -> str:
        """The lines of the broker's settings file."""
        return "".join(listener.settings() for listener in self.listeners) + _RIGHTS

    def format_options(self) -> list[str]:
        """What the tool that formats the data folder is told."""
        users = self.passwords.items()
        told = [f"{_SCRAM}=[name={user},password={password}]" for user, password in users]
        return [word for one in told for word in ("--add-scram", one)]


class Broker:
    """A Kafka that can be killed, paused and brought back on the same port with its data.

    As a context manager it is started on entry, stopped on exit. It never outlives the process
    that started it.
    """

    def __init__(
        self,
        jars: Path = JARS,
        folder: Path | None = None,
        port: int = 0,
        java_opts: Sequence[str] = JAVA_OPTS,
        security: Security | None = None,
        link: Link | None = None,
        controllers: Sequence[int] = (),
        node: int = 1,
    ) -> None:
        """Names what to run where; nothing starts before `start`.

        Args:
            jars: Kafka's class path.
            folder: Where data and logs go, kept afterwards. None: a temporary one.
            port: The port that clients connect to. 0: a free one.
            java_opts: Options of the JVM.
            security: Listeners by TLS, users and rights; None: whoever comes may do everything.
            link: Clients may come by it too.
            controllers: The controllers' ports of all nodes, from node 1 on; empty for one node.
            node: Which of them this one is.
        """
        self._temporary = folder is None
        self.folder = (folder or Path(tempfile.mkdtemp(prefix="headrace-kafka-"))).resolve()
        self.port = port or free_port()
        self.log = self.folder / "logs" / "server.log"
        self._controllers = tuple(controllers) or (free_port(),)
        self._node = node
        self._link = link
        self._jars = jars
        self._java_opts = tuple(java_opts)
        self._security = security
        self._child: Child | None = None

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients."""
        return f"{HOST}:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether the process runs (or is paused)."""
        return self._child is not None and self._child.alive

    @property
    def pid(self) -> int:
        """The process id of the JVM.

        Raises:
            HarnessError: The broker was not started.
        """
        return self._running().pid

    def start(self, timeout_s: float = _START_S) -> Self:
        """Starts it and waits until it answers clients.

        Raises:
            HarnessError: A jar or Java is missing, the port is taken, or it does not answer.
        """
        if self.alive:
            return self
        deadline = time.monotonic() + timeout_s
        self.launch()
        try:
            self.await_answer(deadline)
        except BaseException:
            self.kill()
            raise
        return self

    def launch(self) -> None:
        """Starts it, without waiting for an answer: a node of several waits for the others.

        Raises:
            HarnessError: A jar or Java is missing, or the port is taken.
        """
        java = self._java()
        if not is_free(self.port):
            raise HarnessError(f"port {self.port}: in use on {HOST}; name another one")
        settings = self._write_settings()
        if not (self.folder / "data" / "meta.properties").exists():
            self._format(java, settings)
        self._child = Child([*java, "kafka.Kafka", settings], log=self._output)

    def await_answer(self, deadline: float) -> None:
        """Waits until it answers clients.

        Args:
            deadline: By `time.monotonic`.

        Raises:
            HarnessError: It ended, or does not answer in time.
        """
        for _ in _until(deadline, every_s=0.05):
            self._must_live()
            with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 1):
                break
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        for _ in _until(deadline, every_s=0.05):
            self._must_live()
            with contextlib.suppress(KafkaException):
                if admin.list_topics(timeout=1).brokers:
                    return
        raise HarnessError(
            f"broker on port {self.port}: no answer in time; see {self.log}: {tail(self.log, 3)}",
        )

    def stop(self) -> None:
        """Ends it in good order, by force if that takes too long."""
        if self._child is not None:
            self._child.terminate(_STOP_S)

    def kill(self) -> None:
        """Ends it by -9, as a power cut does for everything but the disk's cache."""
        if self._child is not None:
            self._child.kill()

    def restart(self) -> None:
        """Brings it back on the same port with the same data; stops it first if it runs."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Makes it hang, with all its connections open, until `resume`."""
        self._running().pause()

    def resume(self) -> None:
        """Lets it go on after `pause`."""
        self._running().resume()

    def wait(self) -> int:
        """Waits until it has ended.

        Returns:
            Its exit code.
        """
        return self._running().wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _output(self) -> Path:
        return self.folder / "logs" / "jvm.log"

    def _running(self) -> Child:
        if self._child is None:
            raise HarnessError(f"broker on port {self.port}: not started")
        return self._child

    def _java(self) -> list[str | Path]:
        if not any(self._jars.glob("kafka_*.jar")):
            raise HarnessError(f"jars {self._jars}: no Kafka there; run `make install`")
        return [
            java(),
            *self._java_opts,
            f"-Dlog4j2.configurationFile={_LOG_CONFIGURATION}",
            f"-Dheadrace.log={self.log}",
            "-cp",
            f"{self._jars}/*",
        ]

    def _write_settings(self) -> Path:
        path = self.folder / "server.properties"
        path.parent.mkdir(parents=True, exist_ok=True)
        security = self._security
        plain, nodes = "PLAINTEXT", len(self._controllers)
        # Name, protocol, where it listens, and where clients find it.
        listeners = [(plain, plain, self.bootstrap_servers, self.bootstrap_servers)]
        if self._link is not None:
            listeners.append(("LINK", plain, f"{HOST}:{self._link.target}", self._link.address))
        for own in _listeners(security):
            listeners += [(own.name, own.protocol, own.address, own.address)]
        voters = [f"{node}@{HOST}:{port}" for node, port in enumerate(self._controllers, 1)]
        text = _SETTINGS.format(
            host=HOST,
            node=self._node,
            nodes=nodes,
            in_sync=max(1, nodes - 1),
            voters=",".join(voters),
            listeners=",".join(f"{name}://{at}" for name, _, at, _ in listeners),
            advertised=",".join(f"{name}://{found}" for name, _, _, found in listeners),
            protocols=",".join(f"{name}:{protocol}" for name, protocol, *_ in listeners),
            controller_port=self._controllers[self._node - 1],
            data=self.folder / "data",
        )
        path.write_text(text + (security.settings() if security else ""))
        return path

    def _format(self, java: Sequence[str | Path], settings: Path) -> None:
        tool = [*java, "kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", settings]
        tool += self._security.format_options() if self._security else []
        with Child(tool, log=self._output) as child:
            if child.wait(_START_S) != 0:
                raise HarnessError(f"folder {self.folder}: not formatted: {tail(self._output, 3)}")

    def _must_live(self) -> None:
        if not self.alive:
            raise HarnessError(
                f"broker on port {self.port}: ended at once with exit code "
                f"{self._running().exit_code}; see {self.folder / 'logs'}: {tail(self._output, 3)}",
            )


def _listeners(security: Security | None) -> Sequence[Listener]:
    return security.listeners if security else ()


def _until(deadline: float, every_s: float) -> Iterator[None]:
    while time.monotonic() < deadline:
        yield
        time.sleep(every_s)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _run(broker: Broker) -> int:
    # SIGINT too: a shell starts its background jobs with it ignored.
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    with contextlib.suppress(KeyboardInterrupt), broker:
        _say(f"Apache Kafka at {broker.bootstrap_servers}, data in {broker.folder}. Ctrl-C stops.")
        code = broker.wait()
        raise HarnessError(f"broker on port {broker.port}: ended with exit code {code}")
    _say("Stopped.")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a broker in the foreground until Ctrl-C or SIGTERM.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m harness.broker", description="Runs Kafka.")
    parser.add_argument("--port", type=int, default=9092, help="default: 9092; 0: a free one")
    parser.add_argument("--folder", type=Path, help="for data and logs; default: a temporary one")
    parser.add_argument("--jars", type=Path, default=JARS, help="Kafka's class path")
    given = parser.parse_args(arguments)
    try:
        return _run(Broker(given.jars, given.folder, given.port))
    except HeadraceError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
