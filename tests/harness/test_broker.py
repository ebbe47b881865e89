import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from harness.broker import Broker, main
from harness.process import ROOT, HarnessError, free_port

from .test_process import gone, linux_only, wait_until

needs_kafka = pytest.mark.kafka


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that these tests may kill."""
    with Broker(folder=tmp_path_factory.mktemp("kafka")) as running:
        yield running


def create_topic(broker: Broker, topic: str) -> None:
    """Makes a topic of one partition."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.create_topics([NewTopic(topic, num_partitions=1)])[topic].result(10)


def send(broker: Broker, topic: str, count: int) -> None:
    """Sends `count` records in one transaction."""
    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "transactional.id": topic,
        }
    )
    producer.init_transactions(20)
    producer.begin_transaction()
    for number in range(count):
        producer.produce(topic, str(number))
    producer.commit_transaction(20)


def read(broker: Broker, topic: str, count: int) -> list[int]:
    """Reads the first `count` committed records."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "group.id": "test",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    values: list[int] = []
    deadline = time.monotonic() + 20
    while len(values) < count and time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            values.append(int(message.value() or b""))
    consumer.close()
    return values


@needs_kafka
def test_answers_once_started(own: Broker) -> None:
    """`start` returns when the broker answers, under the address it names."""
    admin = AdminClient({"bootstrap.servers": own.bootstrap_servers})
    brokers = admin.list_topics(timeout=5).brokers
    assert [f"{b.host}:{b.port}" for b in brokers.values()] == [own.bootstrap_servers]


@needs_kafka
def test_listens_on_loopback_only(own: Broker) -> None:
    """No port of it can be reached from another machine."""
    listening = [
        connection.laddr.ip
        for connection in psutil.Process(own.pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) == 2
    # The JVM opens sockets of the newer family, which then hold the older one's address.
    assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


@needs_kafka
def test_kill_and_restart_keep_the_data(own: Broker) -> None:
    """After -9, the same port serves the same committed records."""
    create_topic(own, "kept")
    send(own, "kept", 100)
    before = own.pid
    own.kill()
    assert not own.alive
    own.restart()
    assert own.pid != before
    assert read(own, "kept", 100) == list(range(100))


@needs_kafka
def test_pause_makes_it_silent(own: Broker) -> None:
    """A paused broker keeps its connections and answers nothing; resumed, it answers."""
    admin = AdminClient({"bootstrap.servers": own.bootstrap_servers})
    admin.list_topics(timeout=5)
    own.pause()
    try:
        with pytest.raises(KafkaException):
            admin.list_topics(timeout=0.5)
        with socket.create_connection(("127.0.0.1", own.port), 1):
            pass
    finally:
        own.resume()
    assert admin.list_topics(timeout=10).brokers


@needs_kafka
@linux_only
def test_nothing_is_left_of_a_killed_parent(tmp_path: Path) -> None:
    """A parent that ends by -9 takes its broker along."""
    script = (
        "import time; from pathlib import Path; from harness.broker import Broker;"
        f"print(Broker(folder=Path({str(tmp_path)!r})).start().pid, flush=True);"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=-1) as parent:
        assert parent.stdout is not None
        orphan = int(parent.stdout.readline())
        assert psutil.Process(orphan).name() == "java"
        parent.kill()
    wait_until(lambda: gone(orphan))


@needs_kafka
def test_command_runs_until_interrupted(tmp_path: Path) -> None:
    """`python -m harness.broker` says where it is, and ends with 0 on SIGINT, leaving nothing."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "harness.broker",
        "--port",
        str(port),
        "--folder",
        str(tmp_path),
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline().startswith(f"Apache Kafka at 127.0.0.1:{port}")
        (jvm,) = psutil.Process(running.pid).children()
        subprocess.run(["kill", "-2", str(running.pid)], check=True)
        assert running.wait(30) == 0
    assert gone(jvm.pid)


@needs_kafka
def test_a_taken_port_is_named(own: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    """A port in use is told in one line, with exit code 1."""
    assert main(["--port", str(own.port)]) == 1
    assert capsys.readouterr().err == f"port {own.port}: in use on 127.0.0.1; name another one\n"


def test_missing_jars_name_the_way_out(tmp_path: Path) -> None:
    """Without jars, the error says which command fetches them."""
    with pytest.raises(HarnessError, match="run `make install`"):
        Broker(jars=tmp_path, folder=tmp_path).start()


@needs_kafka
def test_a_broker_that_ends_at_once_is_quoted(tmp_path: Path) -> None:
    """A JVM that refuses its options fails the start with its own words."""
    with pytest.raises(HarnessError, match="Unrecognized option"):
        Broker(folder=tmp_path, java_opts=["-nonsense"]).start()


def test_a_broker_never_started_says_so(tmp_path: Path) -> None:
    """Pausing what does not run is an error of the test that does it, and is told."""
    broker = Broker(folder=tmp_path)
    assert not broker.alive
    with pytest.raises(HarnessError, match="not started"):
        broker.pause()
    broker.stop()
    broker.kill()
