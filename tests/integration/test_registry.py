"""Topics under a real schema registry: read and written, and while the registry is away."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from harness.audit import read_topic
from harness.registry import Registry
from headrace.v1.embedding_pb2 import Embedding
from tests.cli.conftest import headrace
from tests.integration.pipeline import Pipeline
from tests.integration.test_health import Watched
from tests.registries import AT, BY_TOPIC, KEY_AVRO, NOTE_AVRO, Shelf, framed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.broker import Broker

UNKNOWN = 987_654
PRODUCT_AVRO = """
{"type": "record", "name": "Product", "fields": [
  {"name": "title", "type": "string"}, {"name": "price", "type": "double"}]}
"""
SECRET = "hunter2"  # noqa: S105 - it is none


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that may be killed."""
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def shelf(mortal: Registry) -> Iterator[Shelf]:
    """Subjects of the test's own."""
    with closing(Shelf(mortal)) as own:
        yield own


def under(registry: Registry, **more: str) -> dict[str, str]:
    """The settings of a flow that reads under a registry."""
    given = {"SOURCE__ENCODING": "registry", "REGISTRY__URL": registry.url, **more}
    return {f"HEADRACE_{name}": value for name, value in given.items()}


def dead_letters(pipeline: Pipeline) -> dict[bytes | None, tuple[str, str]]:
    """The code and the message of each dead letter, by its key."""
    found = {}
    servers = pipeline.broker.bootstrap_servers
    for message in read_topic(servers, pipeline.topics.dead_letters):
        headers: Any = message.headers() or ()
        told = {name: value.decode() for name, value in headers}
        found[message.key()] = told["headrace-error"], told["headrace-message"]
    return found


def test_every_kind_of_schema(
    broker: Broker, mortal: Registry, shelf: Shelf, tmp_path: Path
) -> None:
    """Rows of all kinds and versions, dead letters that name schemas, outputs for stock readers."""
    notes = shelf.notes()
    settings = under(mortal, EMBEDDINGS__ENCODING="registry", TABLE__COLUMNS='{"stars": "int64"}')
    with Pipeline(broker, tmp_path, settings=settings) as pipeline:
        for name, value in {**notes, "gone": notes["json"]}.items():
            pipeline.put_raw(name.encode(), value)
        pipeline.delete("gone")
        pipeline.put_raw(b"unknown", framed(UNKNOWN, b"x"))
        pipeline.put_raw(b"plain", b'{"text": "no registry"}')
        pipeline.put_raw(b"unfit", notes["json"][:5] + b'{"text": 1}')
        pipeline.settle()
        assert pipeline.flow.terminate() == [0]

    rows = pipeline.rows()
    assert {name: row["text"] for name, row in rows.items()} == {
        "avro": "A note in Avro.",
        "avro2": "A note in Avro.",
        "json": "A note in JSON.",
        "proto": "A note in Protobuf.",
    }
    assert {name: row["stars"] for name, row in rows.items()} == {
        "avro": None,
        "avro2": 5,
        "json": None,
        "proto": 1 << 40,
    }
    assert {row["metadata"] for row in rows.values()} == {'{"place":{"city":"Ulm"}}'}
    assert {rows[name]["event_time"] for name in ("avro", "avro2", "proto")} == {AT}

    told = dead_letters(pipeline)
    assert {code for code, _ in told.values()} == {"bad_schema"}
    assert f"schema {UNKNOWN}: " in told[b"unknown"][1]
    assert "wire format" in told[b"plain"][1]
    assert f"({shelf.name}-JSONSerializer-value version 1)" in told[b"unfit"][1]

    read = ProtobufDeserializer(Embedding, BY_TOPIC)
    where = SerializationContext(pipeline.topics.embeddings, MessageField.VALUE)
    seen = {
        found.id: found
        for message in read_topic(broker.bootstrap_servers, pipeline.topics.embeddings)
        if (found := read(message.value(), where)) is not None
    }
    assert set(seen) == {*rows, "gone"}
    assert len(seen["proto"].vector) == 4 * seen["proto"].dimension
    assert f"{pipeline.topics.embeddings}-value" in shelf.client.get_subjects()


def test_init_reads_by_schemas(
    broker: Broker, mortal: Registry, shelf: Shelf, tmp_path: Path
) -> None:
    """Of a topic in Avro the settings are guessed as of one in JSON, and name the registry."""
    pipeline = Pipeline(broker, tmp_path)
    for number, tree in enumerate(("oak", "pine", "ash")):
        value = {"title": f"A chair of {tree}, oiled by hand", "price": number * 1.5}
        pipeline.put_raw(f"p{number}".encode(), shelf.avro(PRODUCT_AVRO, value))
    pipeline.producer.flush(30)
    environment = pipeline.environment | under(mortal)
    given = ("init", "--topic", pipeline.topics.source, "--dry-run", "--json")
    told = headrace(environment, *given).json
    assert told["fit"]["documents"] == 3
    assert told["settings"]["registry"] == {"url": mortal.url, "key": "text"}
    source = told["settings"]["source"]
    assert (source["encoding"], source["metadata"]["price"]["type"]) == ("registry", "float64")
    assert "oiled by hand" in told["documents"][0]["text"]


def test_a_registry_that_is_killed(
    broker: Broker, mortal: Registry, shelf: Shelf, tmp_path: Path
) -> None:
    """What is at hand goes on, what is not waits; and nothing is lost, whatever ends the flow."""
    settings = under(
        mortal,
        REGISTRY__KEY="registry",
        REGISTRY__CLIENT__BASIC_AUTH_USER_INFO=f"u:{SECRET}",
        SOURCE__TEXT="{/text}",
    )
    keys = [shelf.avro(KEY_AVRO, number) for number in range(6)]
    value = {"text": "known", "metadata": {"place": None}, "timestamp": AT}
    place = [shelf.notes_place()]
    known = shelf.avro(NOTE_AVRO, value, place)
    fresh = [
        shelf.avro(NOTE_AVRO.replace("About", f"About{n}"), {**value, "text": f"fresh {n}"}, place)
        for n in range(2)
    ]
    with Watched(broker, tmp_path, partitions=1, settings=settings) as pipeline:
        pipeline.put_raw(keys[0], known)
        pipeline.settle()
        mortal.kill()
        pipeline.put_raw(keys[1], known)
        pipeline.settle()
        pipeline.put_raw(keys[2], fresh[0])
        pipeline.put_raw(keys[3], known)
        pipeline.producer.flush(30)
        pipeline.wait(lambda: "registry" in str(pipeline.health("ready")))
        assert pipeline.health("live")[0] == 200
        mortal.start()
        pipeline.settle()
        pipeline.wait(lambda: pipeline.health("ready")[0] == 200)

        mortal.kill()
        pipeline.put_raw(keys[4], fresh[1])
        pipeline.put_raw(keys[5], known)
        pipeline.producer.flush(30)
        pipeline.wait(lambda: "registry" in str(pipeline.health("ready")))
        pipeline.flow.kill()
        pipeline.flow.start()
        pipeline.wait(lambda: "registry" in str(pipeline.health("ready")))
        assert pipeline.flow.terminate(10) == [0]
        log = pipeline.flow.log_text()
        assert "asked to end while the schema registry is away" in log
        assert "trying suspects" not in log
        assert SECRET not in log
        mortal.start()
        pipeline.flow.start()
        pipeline.settle()
        assert pipeline.flow.terminate() == [0]
    texts = {name: row["text"] for name, row in pipeline.rows().items()}
    assert texts == {
        **dict.fromkeys("0135", "known"),
        "2": "fresh 0",
        "4": "fresh 1",
    }
    assert [found.outcome for found in pipeline.outputs()] == ["embedding"] * 6
