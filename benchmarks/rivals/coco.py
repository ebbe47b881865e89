"""CocoIndex, live: `python -m benchmarks.rivals.coco JOB`.

A topic as a live map, and for each document a row of a LanceDB table and a message of a topic that
CocoIndex keeps in step with it. The model takes what is in flight, up to 32 texts at once.
"""

# No postponed annotations: CocoIndex reads the types of what it is given.
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cocoindex as coco
import numpy as np
from cocoindex.connectors import kafka, lancedb
from cocoindex.resources.schema import VectorSchema
from confluent_kafka import Message
from confluent_kafka.aio import AIOConsumer, AIOProducer
from numpy.typing import NDArray

from benchmarks.rivals.job import Job
from benchmarks.rivals.model import Model

__all__ = ["run"]

_ROWS = 32
# The producer's own default of 1 s would hold up every message for as long.
_BUFFER_S = 0.01
_DIMENSION = 384
_TABLES = coco.ContextKey[lancedb.LanceAsyncConnection]("tables")
_PRODUCER = coco.ContextKey[AIOProducer]("producer")


@dataclass
class Row:
    """A row of the table."""

    id: str
    text: str
    vector: Annotated[
        NDArray[np.float32], VectorSchema(dtype=np.dtype(np.float32), size=_DIMENSION)
    ]


def run(job: Job) -> None:
    """Reads, embeds and writes until it is killed."""
    os.environ["COCOINDEX_DB"] = str(Path(job.folder) / "state")
    model = Model(job.model, job.backend)

    @coco.lifespan
    async def resources(builder: coco.EnvironmentBuilder) -> AsyncIterator[None]:
        builder.provide(_TABLES, await lancedb.connect_async(job.table))
        producer = AIOProducer(
            {"bootstrap.servers": job.bootstrap_servers, "compression.type": "lz4"},
            buffer_timeout=_BUFFER_S,
        )
        builder.provide(_PRODUCER, producer)
        yield

    @coco.fn.as_async(batching=True, max_batch_size=_ROWS)
    def vector_of(texts: list[str]) -> list[NDArray[np.float32]]:
        return list(model.encode(texts))

    @coco.fn
    async def document(
        message: Message,
        table: lancedb.TableTarget[Row],
        topic: kafka.KafkaTopicTarget,
    ) -> None:
        key = (message.key() or b"").decode()
        text = json.loads(message.value() or b"")["text"]
        vector = await vector_of(text)
        table.declare_row(row=Row(key, text, vector))
        topic.declare_target_state(key=key, value=vector.tobytes())

    @coco.fn
    async def pipeline() -> None:
        schema = await lancedb.TableSchema.from_class(Row, primary_key=["id"])
        table = await lancedb.mount_table_target(_TABLES, "documents", schema)
        topic = await kafka.mount_kafka_topic_target(_PRODUCER, job.target)
        consumer = AIOConsumer(
            {
                "bootstrap.servers": job.bootstrap_servers,
                "group.id": job.group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
            }
        )
        documents = kafka.topic_as_map(consumer, [job.source])
        await coco.mount_each(document, documents, table, topic)

    coco.App(coco.AppConfig(name="Benchmark"), pipeline).update_blocking(live=True)


if __name__ == "__main__":
    run(Job.of(sys.argv[1:]))
