"""What a stream can bring: growth, compaction, gaps, patches, chunks, several topics, an end."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from harness.audit import read_topic
from harness.broker import Broker
from headrace.v1.document_pb2 import Document
from headrace.v1.embedding_pb2 import Embedding
from tests.integration.pipeline import Pipeline

pytestmark = pytest.mark.kafka


def test_the_first_documents(broker: Broker, tmp_path: Path) -> None:
    """Documents, an update, a deletion, and headers come out on the topic and in the table."""
    columns = {"HEADRACE_TABLE__COLUMNS": '{"price": "float64"}'}
    with Pipeline(broker, tmp_path, settings=columns) as pipeline:
        trace = [("traceparent", b"00-1-2-01"), ("other", b"x")]
        pipeline.put_raw(b"a", b'{"text": "a red chair", "timestamp": 1700000000000}', trace)
        pipeline.put("b", "a blue table", metadata={"price": 12, "color": "blue"})
        pipeline.put("c", "soon gone")
        pipeline.settle()
        pipeline.put("b", "a green table", metadata={"price": 13.5})
        pipeline.delete("c")
        pipeline.settle()
        rows, outputs = pipeline.rows(), pipeline.outputs()
    assert set(rows) == {"a", "b"}
    assert rows["a"]["event_time"].timestamp() == 1_700_000_000
    assert (rows["b"]["text"], rows["b"]["price"], rows["b"]["metadata"]) == (
        "a green table",
        13.5,
        "{}",
    )
    assert [found.outcome for found in outputs].count("tombstone") == 1
    first = next(found for found in outputs if found.key == b"a")
    message = Embedding.FromString(first.value or b"")
    assert np.array_equal(np.frombuffer(message.vector, "<f4"), np.float32(rows["a"]["vector"]))
    assert message.metadata_json == "{}"
    assert (message.source.topic, message.dimension) == (pipeline.topics.source, 384)
    assert np.linalg.norm(np.frombuffer(message.vector, "<f4")) == pytest.approx(1.0, abs=1e-5)


def test_records_that_change_only_metadata(broker: Broker, tmp_path: Path) -> None:
    """A patch keeps text and vector, in flight or committed; of nothing it is a dead letter."""
    with Pipeline(broker, tmp_path, partitions=1) as pipeline:
        pipeline.put("a", "the text stays", metadata={"n": 1})
        pipeline.put("a", metadata={"n": 2})
        pipeline.settle()
        before = pipeline.rows()["a"]
        pipeline.put("a", metadata={"n": 3})
        pipeline.put("nobody", metadata={"n": 1})
        pipeline.settle()
        after, outputs = pipeline.rows(), pipeline.outputs()
    assert json.loads(before["metadata"]) == {"n": 2}
    assert json.loads(after["a"]["metadata"]) == {"n": 3}
    assert after["a"]["text"] == "the text stays"
    assert after["a"]["vector"] == before["vector"]
    assert set(after) == {"a"}
    assert [o.outcome for o in outputs] == ["embedding"] * 3 + ["no_text"]


def test_protobuf_documents(broker: Broker, tmp_path: Path) -> None:
    """A record whose content type says so is read as Protobuf."""
    with Pipeline(broker, tmp_path) as pipeline:
        document = Document(text="from protobuf", metadata_json='{"a": 1}', timestamp=5)
        content = [("content-type", b"application/x-protobuf")]
        pipeline.put_raw(b"p", document.SerializeToString(), content)
        pipeline.put_raw(b"q", b"\xff\xff\xff", content)
        pipeline.settle()
        rows, outputs = pipeline.rows(), pipeline.outputs()
    assert (rows["p"]["text"], rows["p"]["metadata"]) == ("from protobuf", '{"a":1}')
    assert [o.outcome for o in outputs if o.key == b"q"] == ["bad_schema"]


def test_partitions_added_while_running(broker: Broker, tmp_path: Path) -> None:
    """Records of a partition that was added later are read without a restart, and after one."""
    with Pipeline(broker, tmp_path, partitions=1) as pipeline:
        pipeline.put("first", "before the topic grew")
        pipeline.settle()
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
        admin.create_partitions([NewPartitions(pipeline.topics.source, 3)])[
            pipeline.topics.source
        ].result(10)
        pipeline.connect()  # a producer that knows of the new partitions
        for partition in (1, 2):
            pipeline.put_raw(b"new-%d" % partition, b'{"text": "grown"}', partition=partition)
        pipeline.settle()
        assert set(pipeline.rows()) == {"first", "new-1", "new-2"}
        assert pipeline.flow.terminate() == [0]
        pipeline.flow.start()
        pipeline.put_raw(b"later", b'{"text": "after a restart"}', partition=2)
        pipeline.settle()
        assert set(pipeline.rows()) == {"first", "new-1", "new-2", "later"}
        assert len({o.place for o in pipeline.outputs()}) == len(pipeline.outputs()) == 4


def test_a_compacted_source(broker: Broker, tmp_path: Path) -> None:
    """Offsets that compaction removed are passed over, and progress reaches the end of the log."""
    pipeline = Pipeline(broker, tmp_path, partitions=1)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.delete_topics([pipeline.topics.source])[pipeline.topics.source].result(10)
    config = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01"}

    def made() -> bool:
        topic = NewTopic(pipeline.topics.source, 1, 1, config=config)
        try:
            admin.create_topics([topic])[pipeline.topics.source].result(10)
        except Exception:  # noqa: BLE001 - the deletion is still under way
            return False
        return True

    pipeline.wait(made)
    for version in range(30):
        pipeline.put("a", f"version {version}")
        pipeline.put("b", f"version {version}")
        pipeline.producer.flush(10)
        time.sleep(0.02)

    def compacted() -> bool:
        pipeline.put("z", "moves the active segment on")
        pipeline.producer.flush(10)
        time.sleep(0.3)
        offsets = [m.offset() for m in read_topic(broker.bootstrap_servers, pipeline.topics.source)]
        return len(offsets) < (offsets[-1] or 0)

    pipeline.wait(compacted)
    with pipeline:
        pipeline.settle()
        assert {i: r["text"] for i, r in pipeline.rows().items()} == {
            "a": "version 29",
            "b": "version 29",
            "z": "moves the active segment on",
        }


def test_an_end_on_request_commits_everything(broker: Broker, tmp_path: Path) -> None:
    """SIGTERM closes open windows, commits what was read to both sinks, and ends with 0."""
    slow = {"HEADRACE_BATCH__WAIT_MS": "600000"}
    with Pipeline(broker, tmp_path, partitions=1, settings=slow) as pipeline:
        for number in range(20_000):
            pipeline.put(f"{number}", f"one of many documents, number {number}")
        pipeline.producer.flush(30)
        pipeline.wait(lambda: bool(pipeline.outputs()))
        assert pipeline.flow.terminate() == [0]
        progress = pipeline.progress()
        done = len(pipeline.outputs())
        assert 0 < done < 20_000
        assert set(pipeline.rows()) == {f"{number}" for number in range(done)}
        assert progress == {"topic": done, "table": done}


def test_documents_of_several_chunks(broker: Broker, tmp_path: Path) -> None:
    """A long document has a row for each chunk, and loses rows when it shrinks or is deleted."""
    settings = {
        "HEADRACE_MODEL__MAX_CHUNKS": "4",
        "HEADRACE_MODEL__MAX_TOKENS": "32",
        "HEADRACE_MODEL__CHUNK_OVERLAP": "8",
        # A bundle of its own, for which `auto` would measure every runtime first.
        "HEADRACE_MODEL__RUNTIME": "onnxruntime",
        "HEADRACE_MODEL__PRECISION": "fp32",
    }
    with Pipeline(broker, tmp_path, partitions=1, settings=settings) as pipeline:
        long = " ".join(f"word{number}" for number in range(60))
        pipeline.put("a", long, metadata={"n": 1})
        pipeline.put("b", long)
        pipeline.settle()
        chunks = pipeline.table().count_rows("id = 'a' AND NOT deleted")
        pipeline.put("a", metadata={"n": 2})
        pipeline.settle()
        assert chunks == 4
        assert pipeline.table().count_rows("id = 'a' AND NOT deleted") == 4
        pipeline.put("a", "short now")
        pipeline.delete("b")
        pipeline.settle()
        assert pipeline.table().count_rows("id = 'a' AND NOT deleted") == 1
        assert pipeline.table().count_rows("id = 'b' AND NOT deleted") == 0
        sizes = [
            len(Embedding.FromString(o.value or b"").chunks)
            for o in pipeline.outputs()
            if o.key == b"a"
        ]
    assert sizes == [3, 3, 0]


def test_several_topics_in_one_table(broker: Broker, tmp_path: Path) -> None:
    """Two topics whose partitions have the same numbers do not get in each other's way."""
    pipeline = Pipeline(broker, tmp_path, partitions=1)
    other = f"{pipeline.name}-2"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.create_topics([NewTopic(other, 1, 1)])[other].result(10)
    pipeline.flow.settings["HEADRACE_SOURCE__TOPICS"] = f"{pipeline.topics.source},{other}"
    for number in range(5):
        pipeline.put(f"a{number}", "of the first topic")
    pipeline.producer.produce(other, b'{"text": "of the second"}', b"b")
    pipeline.producer.produce(other, b'{"text": "newer", "timestamp": 4000000000000}', b"a4")
    with pipeline:
        pipeline.settle()
        pipeline.wait(lambda: len(pipeline.rows()) == 6)
        pipeline.wait(lambda: pipeline.rows()["a4"]["text"] == "newer")
        assert pipeline.rows()["b"]["source_topic"] == other


def test_a_start_at_the_end(broker: Broker, tmp_path: Path) -> None:
    """`source.start = latest` skips what was there before, and never what comes after."""
    latest = {"HEADRACE_SOURCE__START": "latest"}
    pipeline = Pipeline(broker, tmp_path, partitions=1, settings=latest)
    pipeline.put("before", "was there before")
    pipeline.producer.flush(10)
    with pipeline:
        pipeline.settle()
        pipeline.flow.kill()
        pipeline.put("after", "came while it was down")
        pipeline.producer.flush(10)
        pipeline.flow.start()
        pipeline.settle()
        assert set(pipeline.rows()) == {"after"}


def test_a_lost_table_is_made_anew(broker: Broker, tmp_path: Path) -> None:
    """A table that is gone is filled from the topic anew, without a second outcome there."""
    with Pipeline(broker, tmp_path, partitions=2) as pipeline:
        for number in range(20):
            pipeline.put(f"d{number}", f"document {number}")
        pipeline.settle()
        outcomes = len(pipeline.outputs())
        pipeline.flow.terminate()
        (tmp_path / "lancedb").rename(tmp_path / "gone")
        pipeline.flow.start()
        pipeline.settle()
        assert len(pipeline.rows()) == 20
        assert len(pipeline.outputs()) == outcomes == 20


def test_progress_passes_aborted_transactions(broker: Broker, tmp_path: Path) -> None:
    """Aborted records have no outcome, and markers at the log's end don't hold progress back."""
    with Pipeline(broker, tmp_path, partitions=1) as pipeline:
        config = {"bootstrap.servers": broker.bootstrap_servers, "transactional.id": pipeline.name}
        writer = Producer(config)
        writer.init_transactions(10)
        for commit in (True, False):
            writer.begin_transaction()
            writer.produce(pipeline.topics.source, b'{"text": "in a transaction"}', str(commit))
            if commit:
                writer.commit_transaction(10)
            else:
                writer.flush(10)
                writer.abort_transaction(10)
        pipeline.settle()
        assert set(pipeline.rows()) == {"True"}
        [committed] = pipeline_committed(broker, pipeline)
        assert committed.offset == 4


def pipeline_committed(broker: Broker, pipeline: Pipeline) -> list[TopicPartition]:
    """The group's committed offset of the source's first partition."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": pipeline.name})
    found = consumer.committed([TopicPartition(pipeline.topics.source, 0)], timeout=10)
    consumer.close()
    return found
