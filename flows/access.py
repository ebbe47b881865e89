"""What the settings name, reached without a dataflow: broker, model, table.

For whatever is no flow itself, and so has no need of Bytewax.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, Protocol

from clients.kafka import KafkaConfig
from operators.model import Chunking, ModelSource, load_encoder
from operators.views import PRODUCT_COLUMNS
from sinks.aliases import Aliases
from sinks.directory import RoutedSchema
from sinks.errors import SinkError
from sinks.join import Join
from sinks.routed import RoutedStore
from sinks.schema import TableSchema
from sinks.store import TableStore
from telemetry.spans import tracing_to

if TYPE_CHECKING:
    from flows.settings import Settings
    from operators.model import Encoder
    from sinks.aliases import Target
    from telemetry.metrics import Metrics
    from telemetry.tracing import Tracing

__all__ = [
    "HOUR_MS",
    "ModelShape",
    "Topics",
    "current",
    "embedding_topics",
    "encoder_of",
    "existing_store",
    "kafka_of",
    "max_message_bytes",
    "model_source_of",
    "reading_store",
    "recommending_tables",
    "recommending_topics",
    "routed_tables",
    "set_to",
    "single_table",
    "table_of",
    "tracing_of",
]

HOUR_MS: Final = 3_600_000.0

VIEW_JSON_BYTES: Final = 8192
"""The most that a remembered view takes as JSON, each of its characters escaped."""

PRODUCT_JOIN: Final = Join({"stock_time": ("in_stock",), "quantity_time": ("quantity",)}, ("heat",))
"""A product's title is told by views, its stock by the inventory."""


class ModelShape(Protocol):
    """What a table must know of the model whose vectors it holds."""

    name: str
    fingerprint: str
    dimension: int


@dataclass(frozen=True)
class Topics:
    """What a flow reads and writes: pairs of a setting, for errors, and the topic that it names."""

    sources: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]

    @property
    def rights(self) -> dict[str, str]:
        """The operation that a flow must be allowed on each topic, beside looking at it."""
        return {
            **{topic: "Read" for _, topic in self.sources},
            **{topic: "Write" for _, topic in self.outputs},
        }


def kafka_of(settings: Settings) -> KafkaConfig:
    """How the broker is reached."""
    kafka = settings.kafka
    return KafkaConfig(kafka.bootstrap_servers, kafka.application_id, kafka.client, kafka.outage_s)


def tracing_of(settings: Settings, service: str) -> Tracing | None:
    """What makes spans under a service's name; None where they have nowhere to go."""
    return tracing_to(settings.traces.endpoint, settings.traces.sample, service)


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
        chunking=Chunking(model.max_chunks, model.chunk_overlap, model.split),
        batch_tokens=settings.batch.tokens,
        on_inference=metrics.inference if metrics else None,
    )


@cache
def _aliases(uri: str) -> Aliases:
    """Kept, since a server looks at them again and again."""
    return Aliases(uri)


def current(settings: Settings) -> Settings:
    """The settings of the table that readers of `table.name` are to read, and of its flow.

    Another table than that of the name itself after `headrace migrate`.

    Raises:
        SinkError: The aliases can't be read.
    """
    target = _aliases(settings.table.uri).resolve(settings.table.name)
    return settings if target is None else set_to(settings, target)


def set_to(settings: Settings, target: Target) -> Settings:
    """The same settings for another table and its model."""
    changed: dict[str, dict[str, object]] = {
        "kafka": {"application_id": target.application_id},
        "embeddings": {"topic": target.embeddings_topic},
        "dead_letters": {"topic": target.dead_letters_topic},
        "table": {"name": target.table},
        "model": {"name": target.model, "max_tokens": target.max_tokens},
    }
    sections = {
        name: getattr(settings, name).model_copy(update=update) for name, update in changed.items()
    }
    return settings.model_copy(update=sections)


def reading_store(settings: Settings) -> TableStore:
    """The table that the settings name, to be opened and read only: that takes no model."""
    table = settings.table
    return TableStore(table.uri, table.name, TableSchema(0, settings.columns), "", "")


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


def embedding_topics(settings: Settings) -> Topics:
    """What `flows.embed` reads and writes."""
    return Topics(
        tuple(("source.topics", topic) for topic in settings.source.topics),
        (
            ("embeddings.topic", settings.embeddings.topic),
            ("dead_letters.topic", settings.dead_letters.topic),
        ),
    )


def table_of(settings: Settings, encoder: ModelShape) -> TableStore | RoutedStore:
    """The table of that model's vectors, or those of which each record names one."""
    if settings.table.routed:
        return routed_tables(settings, encoder)
    return single_table(settings, encoder)


def single_table(settings: Settings, encoder: ModelShape) -> TableStore:
    """The table of that model's vectors, where there is one."""
    table, several = settings.table, len(settings.source.topics) > 1
    schema = TableSchema(encoder.dimension, settings.columns, encoder.name, several)
    return TableStore(table.uri, table.name, schema, encoder.name, encoder.fingerprint)


def routed_tables(settings: Settings, encoder: ModelShape | None = None) -> RoutedStore:
    """The tables of which each record names one.

    Args:
        settings: The settings.
        encoder: The model; without one they can be read only.
    """
    table, several = settings.table, len(settings.source.topics) > 1
    dimension, name, fingerprint = 0, "", ""
    if encoder is not None:
        dimension, name, fingerprint = encoder.dimension, encoder.name, encoder.fingerprint
    schema = RoutedSchema(dimension, settings.columns, name, several)
    return RoutedStore(table.uri, table.name, schema, name, fingerprint, table.max_tables)


def recommending_topics(settings: Settings) -> Topics:
    """What `flows.recommend` reads and writes."""
    recommend = settings.recommend
    return Topics(
        (
            ("recommend.views_topic", recommend.views_topic),
            ("recommend.inventory_topic", recommend.inventory_topic),
        ),
        (
            ("recommend.embeddings_topic", recommend.embeddings_topic),
            ("recommend.users_topic", recommend.users_topic),
            ("dead_letters.topic", settings.dead_letters.topic),
        ),
    )


def recommending_tables(settings: Settings, encoder: ModelShape) -> dict[str, TableStore]:
    """The tables of `flows.recommend`, by the name of their sink."""
    recommend, name = settings.recommend, encoder.name
    products = TableSchema(
        encoder.dimension, PRODUCT_COLUMNS, name, several_topics=True, join=PRODUCT_JOIN
    )
    # A user's state holds what the one before it did, so it replaces it whatever its time is.
    users = TableSchema(encoder.dimension, {}, name, replaces=True)
    named = {
        "products": (recommend.products_table, products),
        "users": (recommend.users_table, users),
    }
    return {
        sink: TableStore(settings.table.uri, table, schema, name, encoder.fingerprint)
        for sink, (table, schema) in named.items()
    }


def max_message_bytes(settings: Settings, dimension: int) -> int:
    """The largest record that the outputs must take.

    A record as large as the source may have, every vector of the longest document, and what a
    message adds to them; or a user with all views that are remembered.
    """
    vectors = settings.model.max_chunks * (dimension * 4 + 64)
    document = settings.source.max_record_bytes + vectors + 8192
    return max(1_000_000, document, settings.recommend.views * VIEW_JSON_BYTES + 8192)
