"""Where a key's records are."""

import uuid

import pytest
from confluent_kafka import Producer

from harness.broker import Broker
from operators.partitions import partition_of
from tests.brokers import read_all, topic_on


@pytest.mark.parametrize(
    ("key", "partition"),
    # As Kafka's own tests have the hashes: 21 is -973932308, foobar -790332482, and so on.
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)],
)
def test_hashes(key: bytes, partition: int) -> None:
    """The hash is Java's, of keys of any length modulo 4."""
    assert partition_of(key, 1 << 31) == partition & 0x7FFFFFFF


@pytest.mark.kafka
def test_as_the_client_places_them(broker: Broker) -> None:
    """Records are where the client that follows the same rule puts them."""
    topic = topic_on(broker, 5)
    servers = {"bootstrap.servers": broker.bootstrap_servers, "partitioner": "murmur2_random"}
    producer = Producer(servers)
    keys = [uuid.uuid4().hex[:length].encode() for length in range(1, 33)]
    for key in keys:
        producer.produce(topic, b"", key)
    assert producer.flush(20) == 0
    found = {m.key(): number for number in range(5) for m in read_all(broker, topic, number)}
    assert found == {key: partition_of(key, 5) for key in keys}
