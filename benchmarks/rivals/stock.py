"""Bytewax with its own Kafka connectors: `python -m benchmarks.rivals.stock JOB`.

`op.map` with the model, a document at a time, from topic to topic, with recovery: at least once.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from benchmarks.rivals.job import Job
from benchmarks.rivals.model import Model

if TYPE_CHECKING:
    from bytewax.connectors.kafka import KafkaError, KafkaSourceMessage

__all__ = ["flow_of", "run"]

_EPOCH = timedelta(seconds=1)


def flow_of(job: Job) -> Dataflow:
    """The dataflow."""
    model = Model(job.model, job.backend)

    def embedded(
        message: KafkaSourceMessage[bytes | None, bytes | None]
        | KafkaError[bytes | None, bytes | None],
    ) -> KafkaSinkMessage[bytes | None, bytes | None]:
        text = json.loads(message.value or b"")["text"]  # type: ignore[union-attr]
        return KafkaSinkMessage(message.key, model.encode([text])[0].tobytes())  # type: ignore[union-attr]

    flow = Dataflow("stock")
    read = op.input("read", flow, KafkaSource([job.bootstrap_servers], [job.source]))
    vectors = op.map("embed", read, embedded)
    op.output("write", vectors, KafkaSink([job.bootstrap_servers], job.target))
    return flow


def run(job: Job) -> None:
    """Reads, embeds and writes until it is killed."""
    folder = Path(job.folder)
    init_db_dir(folder, 1)
    cli_main(flow_of(job), epoch_interval=_EPOCH, recovery_config=RecoveryConfig(folder))


if __name__ == "__main__":
    run(Job.of(sys.argv[1:]))
