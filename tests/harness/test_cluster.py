"""Three nodes, of which one may be missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from harness.cluster import Cluster
from tests.samples import until

if TYPE_CHECKING:
    from pathlib import Path


def commit(servers: str, topic: str) -> None:
    """Write a record in a transaction."""
    producer = Producer({"bootstrap.servers": servers, "transactional.id": topic})
    producer.init_transactions(60)
    producer.begin_transaction()
    producer.produce(topic, "1")
    producer.commit_transaction(60)


def replicas(admin: AdminClient, topic: str) -> int:
    """How many copies there are of a topic's first partition; 0 while a node knows of none."""
    found = admin.list_topics(topic, 10).topics[topic].partitions
    return len(found[0].replicas) if found else 0


@pytest.mark.kafka
def test_goes_on_without_its_coordinator(tmp_path: Path) -> None:
    """A group's coordinator is found by its port; without it another node takes over."""
    with Cluster(tmp_path) as cluster:
        servers = cluster.bootstrap_servers
        admin = AdminClient({"bootstrap.servers": servers})
        admin.create_topics([NewTopic("t", 1)])["t"].result(30)
        # A node may answer that has not heard of the topic yet.
        until(lambda: replicas(admin, "t") == 3, 30)
        commit(servers, "t")
        first = cluster.coordinator("t")
        first.kill()
        commit(servers, "t")
        assert cluster.coordinator("t") is not first
