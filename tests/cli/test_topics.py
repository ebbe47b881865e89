from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource

from tests.cli.conftest import headrace

if TYPE_CHECKING:
    from harness.broker import Broker

pytestmark = pytest.mark.kafka


def config(broker: Broker, topic: str) -> dict[str, str]:
    """A topic's settings."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    resource = ConfigResource("topic", topic)
    found = admin.describe_configs([resource])[resource].result()
    return {name: entry.value for name, entry in found.items()}


def test_create(fresh: dict[str, str], broker: Broker) -> None:
    """Missing topics are made with the settings they need; a second run changes nothing."""
    done = headrace(fresh, "topics", "create", "--partitions", "3", "--json")
    assert done.code == 0, done.err
    made = {topic["name"].rpartition(".")[2]: topic for topic in done.json}
    assert all(topic["made"] for topic in made.values())
    assert {name: topic["partitions"] for name, topic in made.items()} == {
        "documents": 3,
        "shop-views": 3,
        "shop-inventory": 3,
        "embeddings": 3,
        "shop-embeddings": 3,
        "shop-users": 3,
        "dead": 1,
    }
    for compacted in ("embeddings", "shop-embeddings", "shop-users"):
        assert config(broker, made[compacted]["name"])["cleanup.policy"] == "compact"
    dead = config(broker, made["dead"]["name"])
    assert dead["cleanup.policy"] == "delete"
    assert int(dead["retention.ms"]) == 30 * 86_400_000
    again = headrace(fresh, "topics", "create", "--partitions", "5", "--json")
    assert again.code == 0
    assert not any(topic["made"] for topic in again.json)
    assert {topic["partitions"] for topic in again.json} == {3, 1}
    assert headrace(fresh, "topics", "create").out.count("was there: ") == 7


def test_large_records(fresh: dict[str, str], broker: Broker) -> None:
    """Topics take records as large as the settings allow, also above the broker's default."""
    large = {**fresh, "HEADRACE_SOURCE__MAX_RECORD_BYTES": "5000000"}
    done = headrace(large, "topics", "create", "--json")
    assert done.code == 0, done.err
    for topic in done.json:
        assert int(config(broker, topic["name"])["max.message.bytes"]) > 5_000_000


def test_refused(fresh: dict[str, str]) -> None:
    """What the broker refuses is told with its reason, and exits with 1."""
    done = headrace(fresh, "topics", "create", "--replication", "9")
    assert done.code == 1
    assert "making topic" in done.err
    assert done.err.count("\n") == 1
