"""What the settings name, reached without a dataflow: broker, model, table.

For whatever is no flow itself, and so has no need of Bytewax.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clients.kafka import KafkaConfig
from operators.model import ModelSource, load_encoder
from sinks.errors import SinkError
from sinks.schema import TableSchema
from sinks.store import TableStore

if TYPE_CHECKING:
    from flows.settings import Settings
    from operators.model import Encoder
    from telemetry.metrics import Metrics

__all__ = ["encoder_of", "existing_store", "kafka_of", "model_source_of", "reading_store"]


def kafka_of(settings: Settings) -> KafkaConfig:
    """How the broker is reached."""
    kafka = settings.kafka
    return KafkaConfig(kafka.bootstrap_servers, kafka.application_id, kafka.client, kafka.outage_s)


def model_source_of(settings: Settings) -> ModelSource:
    """Where the model comes from."""
    model = settings.model
    return ModelSource(model.name, model.cache, model.jars, model.max_tokens)


def encoder_of(settings: Settings, metrics: Metrics | None = None) -> Encoder:
    """The model, loaded.

    Raises:
        ModelError: It can't be had, or not as the settings want it.
    """
    model = settings.model
    return load_encoder(
        model_source_of(settings),
        runtime=model.runtime,
        precision=model.precision,
        least_agreement=model.least_agreement,
        max_chunks=model.max_chunks,
        chunk_overlap=model.chunk_overlap,
        batch_tokens=settings.batch.tokens,
        on_inference=metrics.inference if metrics else None,
    )


def reading_store(settings: Settings) -> TableStore:
    """The table that the settings name, to be opened and read only: that takes no model."""
    table = settings.table
    return TableStore(table.uri, table.name, TableSchema(0, table.columns), "", "")


def existing_store(settings: Settings) -> TableStore:
    """The same, once it is there.

    Raises:
        SinkError: It is not.
    """
    store = reading_store(settings)
    if not store.exists():
        raise SinkError(
            f"table.name: {store.name}: there is no such table in {store.uri}; the flow makes it: "
            "python -m bytewax.run flows.embed"
        )
    return store
