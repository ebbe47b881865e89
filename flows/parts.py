"""The parts of a flow, made from the settings and checked before anything runs."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flows.access import encoder_of, kafka_of, model_source_of
from flows.settings import Settings, load
from headrace.errors import HeadraceError
from operators.background import Background
from operators.current import VIEW_BYTES
from operators.documents import Decoder
from operators.embed import EmbedStep, StateLimits
from operators.records import DocumentBatch, Lane, OutcomeBatch
from recovery.model import check_model
from recovery.progress import Board
from recovery.shutdown import Shutdown
from recovery.store import Launch, StoreIdentity, check_store
from recovery.watchdog import Watchdog, ending
from sinks.maintenance import Upkeep
from sinks.messages import MessageEncoder
from sinks.schema import TableSchema
from sinks.store import TableStore
from sinks.table import TableSink
from sinks.topic import TopicSink, Writing
from sources.budget import read_ahead
from sources.errors import SourceError
from sources.kafka import KafkaSource, Reading
from telemetry import logs
from telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from confluent_kafka import Consumer

    from clients.kafka import KafkaConfig
    from operators.model import Encoder

__all__ = [
    "Parts",
    "embedding_parts",
    "encoder_of",
    "kafka_of",
    "lanes_of",
    "max_message_bytes",
    "model_source_of",
    "one_line_errors",
    "table_of",
]


COLLECT_EVERY: Final = 50_000
"""How many more objects there must be before the collector looks: batches have thousands, which
their counts free, so looking through them again and again is of no use."""


@dataclass(frozen=True)
class Parts:
    """What `flows.embed` wires together."""

    source: KafkaSource
    decode: Decoder
    embed: Background[DocumentBatch, OutcomeBatch]
    rows: int
    wait: timedelta
    topic: TopicSink
    table: TableSink


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program on an error of ours: one line on standard error, and its exit code."""
    try:
        yield
    except HeadraceError as error:
        print(f"headrace: {error}", file=sys.stderr)  # noqa: T201 - what a person reads
        sys.exit(error.exit_code)


def embedding_parts() -> Parts:
    """The parts of `flows.embed`, from the environment and the settings file.

    Raises:
        HeadraceError: A setting is wrong, or what it names is missing or does not fit.
    """
    settings = load(os.environ, Path.cwd())
    launch = Launch.parse(sys.argv, os.environ)
    logs.configure()
    kafka = kafka_of(settings)
    lanes = lanes_of(settings, kafka)
    metrics = Metrics(freshness_ms=settings.batch.freshness_ms)
    encoder = encoder_of(settings, metrics)
    if launch.recovery is not None:
        keys = tuple(lane.key for lane in lanes)
        check_store(launch.recovery, StoreIdentity(keys, encoder.name, encoder.fingerprint))
    check_model(kafka, lanes, encoder.name, encoder.fingerprint)
    store = table_of(settings, encoder)
    store.ensure()
    _serve(settings, metrics, launch.process)
    shutdown = Shutdown()
    shutdown.on_signals()
    parts = _wire(settings, kafka, lanes, encoder, store, metrics, shutdown)
    # What is there by now stays: the collector need not look through it again and again.
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY)
    return parts


def _wire(
    settings: Settings,
    kafka: KafkaConfig,
    lanes: tuple[Lane, ...],
    encoder: Encoder,
    store: TableStore,
    metrics: Metrics,
    shutdown: Shutdown,
) -> Parts:
    board = Board({"topic": _Committed(kafka), "table": store.progress})
    watchdog = Watchdog()
    source, batch, model = settings.source, settings.batch, settings.model
    step = EmbedStep(
        encoder,
        ending(store.lookup),
        board.written,
        StateLimits(model.cache_entries, model.cache_bytes, _view_bytes(lanes)),
        metrics,
    )
    embed = Background(step, lambda documents: documents.records.nudge)
    reading = Reading(
        kafka,
        source.start,
        source.missing,
        source.max_in_flight,
        source.max_in_flight_bytes,
        read_ahead(len(lanes)),
        batch.freshness_ms,
        embed,
        store.progress,
        board,
        shutdown,
        metrics,
    )
    messages = MessageEncoder(
        settings.embeddings.topic,
        settings.dead_letters.topic,
        settings.embeddings.dtype,
        encoder.name,
        encoder.fingerprint,
    )
    writing = Writing(
        kafka,
        messages,
        settings.embeddings.compression,
        max_message_bytes(settings, encoder.dimension),
        board,
        watchdog,
        metrics,
    )
    table = settings.table
    upkeep = Upkeep(table.index_rows, table.tombstone_retention_s, table.text_index)
    return Parts(
        KafkaSource(lanes, reading),
        Decoder(settings.table.columns, source.max_record_bytes),
        embed,
        batch.rows,
        timedelta(milliseconds=batch.wait_ms),
        TopicSink(lanes, writing),
        TableSink(
            store,
            upkeep,
            model.max_chunks,
            batch.freshness_ms,
            # Half of a lane's share, if one worker has all lanes.
            max(1, source.max_in_flight // (2 * len(lanes))),
            board,
            watchdog,
            metrics,
        ),
    )


def _view_bytes(lanes: Collection[Lane]) -> int:
    """What a lane may keep of rows that both sinks have.

    Nothing where several topics can write the same document: another lane's write of it would
    not be seen. Within a topic a document stays in its lane.
    """
    several = len({lane.topic for lane in lanes}) > 1
    return 0 if several else VIEW_BYTES // max(1, len(lanes))


def lanes_of(settings: Settings, kafka: KafkaConfig) -> tuple[Lane, ...]:
    """The source topics' partitions; waits for a broker that is away.

    Raises:
        BrokerError: The broker can't be reached.
        SourceError: A topic that the settings name is missing.
    """
    outputs = {"embeddings.topic": settings.embeddings.topic}
    outputs["dead_letters.topic"] = settings.dead_letters.topic
    found = kafka.partitions({*settings.source.topics, *outputs.values()})
    named = [("source.topics", topic) for topic in settings.source.topics]
    for setting, topic in [*named, *outputs.items()]:
        if topic not in found:
            raise SourceError(
                f"{setting}: {topic}: there is no such topic on "
                f"{settings.kafka.bootstrap_servers}; make it: headrace topics create"
            )
    return tuple(Lane(t, p) for t in settings.source.topics for p in found[t])


def table_of(settings: Settings, encoder: Encoder) -> TableStore:
    """The table of that model's vectors."""
    table = settings.table
    schema = TableSchema(
        encoder.dimension, table.columns, encoder.name, len(settings.source.topics) > 1
    )
    return TableStore(table.uri, table.name, schema, encoder.name, encoder.fingerprint)


def max_message_bytes(settings: Settings, dimension: int) -> int:
    """The largest record that the outputs must take.

    A record as large as the source may have, every vector of the longest document, and what a
    message adds to them.
    """
    vectors = settings.model.max_chunks * (dimension * 4 + 64)
    return max(1_000_000, settings.source.max_record_bytes + vectors + 8192)


@dataclass(frozen=True)
class _Committed:
    """Reads the group's committed offsets, for sinks that run in another process."""

    kafka: KafkaConfig

    def __call__(self, lanes: Collection[str]) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for key in lanes:
            lane = Lane.parse(key)
            offset = self.kafka.committed(self._consumer, lane.topic, lane.partition)
            if offset is not None:
                found[key] = offset
        return found

    @cached_property
    def _consumer(self) -> Consumer:
        return self.kafka.observer()


def _serve(settings: Settings, metrics: Metrics, process: int) -> None:
    if settings.metrics.address:
        host, _, port = settings.metrics.address.rpartition(":")
        metrics.serve(host, int(port) + process)
