"""What an audit tells of what it finds."""

from pathlib import Path

import lancedb
import pyarrow as pa
import pytest

from harness.audit import audit
from harness.broker import Broker
from harness.workload import EXPECT, Topics, make_topics
from tests.brokers import config_of

pytestmark = pytest.mark.kafka


def test_the_fate_of_what_is_missing(broker: Broker, tmp_path: Path) -> None:
    """Of an outcome that nobody sees, it is told whether it was written at all."""
    name = f"audit-{tmp_path.name}"
    topics = Topics(name, f"{name}.embeddings", f"{name}.dead-letters")
    make_topics(broker.bootstrap_servers, topics, 1)
    config = config_of(broker)
    source = config.producer()
    for _ in range(2):
        source.produce(topics.source, b"{}", b"one", headers=[(EXPECT, b"embedding")])
    source.flush(20)
    lost = config.transactional_producer("lost")
    lost.init_transactions(20)
    lost.begin_transaction()
    place = f"{name}/0/1".encode()
    lost.produce(topics.embeddings, b"", b"one", headers=[("headrace-source", place)])
    lost.flush(20)
    lost.abort_transaction(20)
    columns = pa.schema({"id": pa.string(), "chunk": pa.int32(), "deleted": pa.bool_()})
    lancedb.connect(tmp_path).create_table("documents", schema=columns)
    report = audit(broker.bootstrap_servers, topics, name, (str(tmp_path), "documents"))
    assert report.missing == [(name, 0, 0), (name, 0, 1)]
    assert report.fates == [
        f"{(name, 0, 0)} was never written",
        f"{(name, 0, 1)} was never committed at {topics.embeddings}/0@0",
    ]
    assert report.fates[1] in str(report)
