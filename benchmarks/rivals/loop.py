"""A loop written by hand: `python -m benchmarks.rivals.loop JOB`.

What there is, up to 32 documents in the order in which they come, goes through the model at once;
then vectors to the topic, rows to the table, and last the offsets: at least once. It waits 100 ms
for a first document and for no other, and compacts the table now and then, since it would slow
down otherwise.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import lancedb
import pyarrow as pa
from confluent_kafka import Consumer, KafkaException, Producer

from benchmarks.rivals.job import Job, stopping
from benchmarks.rivals.model import Model

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from confluent_kafka import KafkaError, Message
    from numpy.typing import NDArray

__all__ = ["ROWS", "run"]

ROWS = 32
_WAIT_S = 0.1
_TIDY_EVERY = 100


def run(job: Job) -> None:
    """Reads, embeds and writes until it is asked to end."""
    asked = stopping()
    model = Model(job.model, job.backend)
    table = _table(job, model.encode(["x"]).shape[1])
    producer = Producer({"bootstrap.servers": job.bootstrap_servers, "compression.type": "lz4"})
    consumer = Consumer(
        {
            "bootstrap.servers": job.bootstrap_servers,
            "group.id": job.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([job.source])
    batches = 0
    while not asked.is_set():
        messages = _next(consumer)
        if not messages:
            continue
        texts = [json.loads(message.value() or b"")["text"] for message in messages]
        vectors = model.encode(texts)
        _send(producer, job.target, messages, vectors)
        _merge(table, messages, texts, vectors)
        consumer.commit(asynchronous=False)
        batches += 1
        if batches % _TIDY_EVERY == 0 and job.process == 0:
            table.optimize()
    consumer.close()


def _next(consumer: Consumer) -> list[Message]:
    first = consumer.poll(_WAIT_S)
    if first is None:
        return []
    messages = [first, *consumer.consume(ROWS - 1, 0)]
    for message in messages:
        error = message.error()
        if error is not None:
            raise KafkaException(error)
    return messages


def _send(
    producer: Producer, topic: str, messages: Sequence[Message], vectors: NDArray[np.float32]
) -> None:
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failed.append(error)

    for message, vector in zip(messages, vectors, strict=True):
        producer.produce(topic, vector.tobytes(), message.key(), on_delivery=delivered)
    producer.flush()
    if failed:
        raise KafkaException(failed[0])


def _table(job: Job, dimension: int) -> Any:  # noqa: ANN401 - LanceDB has no types
    schema = pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("text", pa.string()),
            pa.field("vector", pa.list_(pa.float32(), dimension)),
        ]
    )
    return lancedb.connect(job.table).create_table("documents", schema=schema, exist_ok=True)


def _merge(
    table: Any,  # noqa: ANN401 - as above
    messages: Sequence[Message],
    texts: Sequence[str],
    vectors: NDArray[np.float32],
) -> None:
    ids = [(message.key() or b"").decode() for message in messages]
    flat = pa.array(vectors.reshape(-1), pa.float32())
    rows = pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "text": pa.array(texts, pa.string()),
            "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        }
    )
    merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
    merge.execute(rows)


if __name__ == "__main__":
    run(Job.of(sys.argv[1:]))
