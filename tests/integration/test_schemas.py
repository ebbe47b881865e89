"""A reader in another language, made for a released version, on a live topic."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from confluent_kafka import Producer
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool

from harness.process import ROOT
from harness.schemas import read, released
from headrace.v1.embedding_pb2 import Embedding
from tests.brokers import admin, read_all, transact
from tests.integration.pipeline import Pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from harness.broker import Broker

pytestmark = pytest.mark.kafka

READER = "docs/examples/java/ReadEmbeddings.java"
JARS = "build/jars/kafka/*:build/jars/protobuf/*"
WIDTHS = {"float32": "<f4", "float16": "<f2"}
NEWER = 3
"""Fields of the made-up newer version that the released one does not know."""


def newer(release: Path, known: Embedding) -> bytes:
    """A record as a later version may write it: with fields of each kind that nobody knows yet."""
    schema = read(release)
    message = next(m for f in schema.file for m in f.message_type if m.name == "Embedding")
    message.field.add(name="language", number=100, label=1, type=9)
    message.field.add(name="scores", number=101, label=3, type=2)
    message.field.add(name="origin", number=102, label=1, type=11, type_name=".headrace.v1.Source")
    pool = DescriptorPool()
    for file in schema.file:
        pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("headrace.v1.Embedding"))
    more = kind(language="en", scores=[0.5, 0.25], origin={"topic": "elsewhere", "offset": 7})
    return more.SerializeToString() + known.SerializeToString()


def in_python(broker: Broker, topic: str, dtype: str) -> dict[str, np.ndarray | None]:
    """Each document's last vector as Python reads it; None for a deleted one."""
    found: dict[str, np.ndarray | None] = {}
    for partition in admin(broker).list_topics(topic).topics[topic].partitions:
        for record in read_all(broker, topic, partition):
            key, value = record.key(), record.value()
            assert key is not None
            found[key.decode()] = None
            if value is not None:
                vector = Embedding.FromString(value).vector
                found[key.decode()] = np.frombuffer(vector, WIDTHS[dtype])
    return found


def in_java(broker: Broker, topic: str, release: Path) -> dict[str, list[str]]:
    """The last line that the Java reader prints of each document."""
    command = ["java", "-cp", JARS, READER, broker.bootstrap_servers, topic, str(release), "1000"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    return {line[0]: line[1:] for line in lines}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_java_reads_what_python_reads(
    dtype: Literal["float32", "float16"], broker: Broker, tmp_path: Path
) -> None:
    """A reader without generated code gives the same vectors, of newer records as well.

    It is the one in the docs, for each released version. Deleted documents are told as such, and
    what an aborted transaction wrote is not seen.
    """
    settings = {"HEADRACE_EMBEDDINGS__DTYPE": dtype}
    with Pipeline(broker, tmp_path, partitions=2, settings=settings) as pipeline:
        for number in range(6):
            pipeline.put(f"d{number}", f"a chair with {number} legs")
        pipeline.delete("d5")
        pipeline.settle()
    topic = pipeline.topics.embeddings
    transact(broker, topic, 3, commit=False)
    vector = np.array([0.5, -0.0, 6e-5, -(2**-24), 0.75], WIDTHS[dtype])
    known = Embedding(id="later", dtype=dtype, dimension=5, vector=vector.tobytes())
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
    for release in released():
        key = f"later-{release.stem}"
        known.id = key
        producer.produce(topic, newer(release, known), key.encode())
    assert producer.flush(20) == 0

    asked = in_python(broker, topic, dtype)
    assert {"d0", "d4", "later-v0.1.0"} < asked.keys()
    for release in released():
        told = in_java(broker, topic, release)
        assert told.keys() == asked.keys()
        assert told.pop("d5") == ["deleted"]
        for identity, (dimension, unknown, *numbers) in told.items():
            wanted = asked[identity]
            assert wanted is not None
            assert int(dimension) == len(wanted) == len(numbers)
            assert np.array_equal(np.array(numbers, np.float32), wanted.astype(np.float32))
            assert (int(unknown) >= NEWER) == identity.startswith("later")
