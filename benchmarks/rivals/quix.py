"""Quix Streams with its exactly-once guarantee: `python -m benchmarks.rivals.quix JOB`.

A document at a time, as its operators take them, to a topic; it has no sink for vectors. It commits
every 100 ms rather than every 5 s, its default, and waits no longer than that for a document, so
that what it has done is soon seen.
"""

from __future__ import annotations

import sys
from typing import Any

from quixstreams import Application

from benchmarks.rivals.job import Job
from benchmarks.rivals.model import Model

__all__ = ["run"]

_COMMIT_S = 0.1
# librdkafka's default of 100 ms would hold up each transaction that follows another at once.
_RETRY_MS = 5


def run(job: Job) -> None:
    """Reads, embeds and writes until it is asked to end, which Quix Streams sees to."""
    model = Model(job.model, job.backend)
    app = Application(
        broker_address=job.bootstrap_servers,
        consumer_group=job.group,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=_COMMIT_S,
        consumer_poll_timeout=_COMMIT_S,
        producer_extra_config={"retry.backoff.ms": _RETRY_MS, "compression.type": "lz4"},
        state_dir=job.folder,
        auto_create_topics=False,
        loglevel="WARNING",
    )
    source = app.topic(job.source, key_deserializer="bytes", value_deserializer="json")
    target = app.topic(job.target, key_serializer="bytes", value_serializer="bytes")

    def embedded(document: dict[str, Any]) -> bytes:
        vector: bytes = model.encode([document["text"]])[0].tobytes()
        return vector

    app.dataframe(source).apply(embedded).to_topic(target)
    app.run()


if __name__ == "__main__":
    run(Job.of(sys.argv[1:]))
