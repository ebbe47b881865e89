"""What every flow is framed by: settings, broker, model, progress and metrics, checked at start."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from flows.access import max_message_bytes, tracing_of
from flows.host import Host, naming
from flows.registering import embedding_schema, registry_of, values_of
from headrace.errors import HeadraceError
from operators.current import VIEW_BYTES
from operators.embed import EmbedStep, Reuse, StateLimits
from operators.encoding import Prefixed
from operators.passing import PassingDecoder
from operators.poison import GuardedDecoder, GuardedStep
from operators.prefix import prefixes_of
from operators.records import Lane
from recovery.health import FlowHealth
from recovery.model import check_model
from recovery.progress import Board
from recovery.store import Launch, StoreIdentity, check_store
from recovery.watchdog import Watchdog, ending_of
from sinks.maintenance import Upkeep
from sinks.messages import MessageEncoder
from sinks.table import TableSink
from sinks.topic import TopicSink, Writing
from sources.again import read_again
from sources.budget import read_ahead
from sources.errors import SourceError
from sources.kafka import KafkaSource, Reading
from telemetry import logs
from telemetry.spans import NO_SPANS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from confluent_kafka import Consumer

    from clients.kafka import KafkaConfig
    from clients.registry import Registry
    from flows.access import Topics
    from flows.settings import Settings
    from operators.encoding import Input
    from operators.model import Encoder
    from operators.records import DocumentBatch, OutcomeBatch, RecordBatch
    from recovery.poison import PoisonGuard
    from recovery.shutdown import Shutdown
    from sinks.messages import Messages
    from sinks.routed import RoutedStore
    from sinks.store import TableStore
    from sources.kafka import Model
    from sources.registered import RegisteredValues
    from telemetry.metrics import Metrics
    from telemetry.spans import Spans

__all__ = [
    "Frame",
    "Wanted",
    "frames_of",
    "lanes_of",
    "one_line_errors",
    "settle",
]

CONTROL: Final = "a text that no model has ever died of"

COLLECT_EVERY: Final = 50_000
"""How many more objects there must be before the collector looks: batches have thousands, which
their counts free, so looking through them again and again is of no use."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program on an error of ours: one line on standard error, and its exit code."""
    try:
        yield
    except HeadraceError as error:
        print(f"headrace: {error}", file=sys.stderr)  # noqa: T201 - what a person reads
        sys.exit(error.exit_code)


@dataclass(frozen=True)
class Frame:
    """What the parts of a flow share, and the parts that every flow has.

    Attributes:
        settings: The settings.
        kafka: The broker, and the flow's consumer group.
        lanes: The partitions that are read.
        topics: What it reads and writes.
        encoder: The model.
        tables: The tables, by the name of their sink.
        metrics: Where to count.
        board: The sinks' progress.
        health: Whether the flow moves.
        watchdog: Watches commits.
        host: What it shares with other pipelines of the process.
        spans: Told of each stage.
        guard: Knows what is in native code's hands; None where that is switched off.
        registry: The schema registry; None where none is wanted.
    """

    settings: Settings
    kafka: KafkaConfig
    lanes: tuple[Lane, ...]
    topics: Topics
    encoder: Encoder
    tables: Mapping[str, TableStore | RoutedStore]
    metrics: Metrics
    board: Board
    health: FlowHealth
    watchdog: Watchdog
    host: Host
    spans: Spans = NO_SPANS
    guard: PoisonGuard | None = None
    registry: Registry | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether the group has committed nothing yet."""
        return not _Committed(self.kafka)([lane.key for lane in self.lanes])

    @cached_property
    def values(self) -> RegisteredValues | None:
        """What reads records by a registry's schemas; None where they are no such."""
        return values_of(self.settings, self.registry)

    @property
    def shutdown(self) -> Shutdown:
        """Whether to end."""
        return self.host.shutdown

    def decoder(
        self, decode: Callable[[RecordBatch], DocumentBatch]
    ) -> Callable[[RecordBatch], DocumentBatch]:
        """The step that decodes records, once those have been tried that may end the process.

        Schemas are fetched ahead of what is guarded: a process that is killed while it waits for a
        registry did not die of a record.

        Raises:
            HeadraceError: They can't be tried.
        """
        for topic in {lane.topic for lane in self.lanes}:
            self.metrics.passed_over(topic, 0)  # a series before there is such a record
        if self.guard is None:
            return self._after_schemas(self.spans.decoding(PassingDecoder(decode, self.metrics)))
        self.guard.try_suspects(
            {lane.key for lane in self.lanes},
            self._suspects,
            lambda batch: self._attempt(decode, batch),
            lambda: self.encoder.encode([CONTROL]),
            lambda: self.shutdown.asked,
        )
        most = self.settings.source.max_record_bytes
        guarded = GuardedDecoder(decode, self.guard, most)
        return self._after_schemas(self.spans.decoding(PassingDecoder(guarded, self.metrics)))

    def _suspects(self, lane: str, start: int, end: int) -> Iterator[RecordBatch]:
        """The records of a lane again, their schemas at hand."""
        for batch in read_again(self.kafka, Lane.parse(lane), start, end):
            if self.values is not None:
                self.values.ahead(batch)
            yield batch

    def _after_schemas(
        self, decode: Callable[[RecordBatch], DocumentBatch]
    ) -> Callable[[RecordBatch], DocumentBatch]:
        """A step that decodes records once their schemas are at hand."""
        values = self.values
        if values is None:
            return decode

        def step(batch: RecordBatch) -> DocumentBatch:
            values.ahead(batch)
            return decode(batch)

        return self.watchdog.ending(step)

    def guarded(
        self, step: Callable[[Sequence[DocumentBatch]], list[OutcomeBatch]]
    ) -> Callable[[Sequence[DocumentBatch]], Sequence[OutcomeBatch]]:
        """A step of native code, whose records are noted while it has them in hand."""
        guarded = step if self.guard is None else GuardedStep(step, self.guard)
        return self.spans.embedding(guarded)

    def _attempt(self, decode: Callable[[RecordBatch], DocumentBatch], batch: RecordBatch) -> None:
        """Do with a record what native code will do with it, and keep nothing of that."""
        documents = decode(batch)
        prefixes = prefixes_of(documents.metadata, self.settings.model.chunk_prefix)
        rows = zip(prefixes, documents.texts, strict=True)
        texts: list[Input] = [
            Prefixed(prefix, text) if prefix else text for prefix, text in rows if text is not None
        ]
        if texts:
            self.encoder.encode(texts)

    def embed(self, table: str, *, kept: bool = True) -> EmbedStep:
        """The step that embeds documents.

        Args:
            table: The sink whose table has their rows.
            kept: Whether rows may be remembered that all sinks have: not where another lane can
                write them too.
        """
        model = self.settings.model
        view_bytes = self.view_bytes if kept else 0
        store = self.tables[table]
        lookup = self.watchdog.ending(store.vectors) if self.settings.reuses else None
        return EmbedStep(
            self.encoder,
            self.watchdog.ending(store.lookup),
            self.board.written,
            StateLimits(model.cache_entries, model.cache_bytes, view_bytes),
            self.metrics,
            reuse=Reuse(model.chunk_prefix, lookup),
        )

    @property
    def view_bytes(self) -> int:
        """What a lane may keep of rows that all sinks have."""
        return VIEW_BYTES // max(1, self.host.lanes)

    def source(self, model: Model) -> KafkaSource:
        """The source of all lanes.

        Args:
            model: What it asks of the steps ahead of it.
        """
        source = self.settings.source
        reading = Reading(
            self.kafka,
            source.start,
            source.missing,
            source.max_in_flight,
            source.max_in_flight_bytes,
            read_ahead(self.host.lanes),
            self.settings.batch.freshness_ms,
            model,
            {name: store.progress for name, store in self.tables.items()},
            self.board,
            self.shutdown,
            self.health,
            self.metrics,
            self.watchdog.end,
        )
        return KafkaSource(self.lanes, reading)

    def messages(self, topic: str) -> MessageEncoder:
        """What writes outcomes as records of a topic."""
        settings, encoder = self.settings, self.encoder
        return MessageEncoder(
            topic,
            settings.dead_letters.topic,
            settings.embeddings.dtype,
            encoder.name,
            encoder.fingerprint,
            self._framing(topic),
        )

    def _framing(self, topic: str) -> bytes:
        """What stands before each of a topic's embeddings; nothing but under a registry."""
        embeddings = self.settings.embeddings
        if self.registry is None or embeddings.encoding != "registry":
            return b""
        return self.registry.framing(topic, embedding_schema(), register=embeddings.register_schema)

    def topic_sink(self, messages: Messages) -> TopicSink:
        """The sink of all lanes' transactions."""
        writing = Writing(
            self.kafka,
            messages,
            self.settings.embeddings.compression,
            max_message_bytes(self.settings, self.encoder.dimension),
            self.board,
            self.watchdog,
            self.metrics,
            self.spans,
            self.topics.rights,
            self.host.topic_parts,
        )
        return TopicSink(self.lanes, writing)

    def table_sink(
        self,
        name: str,
        behind: Sequence[str] = ("topic",),
        *,
        text_index: bool = True,
        vector_index: bool = True,
    ) -> TableSink:
        """The sink of one table.

        Args:
            name: The sink's.
            behind: See `sinks.table.TablePartitionSink`.
            text_index: Whether it may have a full-text index.
            vector_index: Whether it may have a vector index.
        """
        table, source = self.settings.table, self.settings.source
        return TableSink(
            self.tables[name],
            Upkeep(
                table.index_rows if vector_index else sys.maxsize,
                table.tombstone_retention_s,
                table.text_index and text_index,
            ),
            self.settings.model.max_chunks,
            self.settings.batch.freshness_ms,
            # Half of a lane's share, if one worker has all lanes.
            max(1, source.max_in_flight // (2 * len(self.lanes))),
            self.board,
            self.watchdog,
            self.metrics,
            name,
            tuple(behind),
            self.spans,
        )


@dataclass(frozen=True)
class Wanted:
    """What a pipeline's frame is made from.

    Attributes:
        settings: The settings.
        kafka: The broker, and the pipeline's consumer group.
        topics: What it reads and writes.
        sinks: Its sinks that are tables.
        tables: Their tables, for the settings and the model.
    """

    settings: Settings
    kafka: KafkaConfig
    topics: Topics
    sinks: tuple[str, ...]
    tables: Callable[[Settings, Encoder], Mapping[str, TableStore | RoutedStore]]


def frames_of(wanted: Sequence[Wanted]) -> list[Frame]:
    """Everything that is there before the parts of each pipeline, one after the other.

    Raises:
        HeadraceError: A setting is wrong, or what it names is missing or does not fit.
    """
    launch = Launch.parse(sys.argv, os.environ)
    logs.configure()
    lanes: list[tuple[Lane, ...]] = []
    for one in wanted:
        with naming(one.settings.name):
            one.kafka.demand(one.topics.rights)
            lanes.append(lanes_of(one.kafka, one.topics))
    host = Host(launch, sum(map(len, lanes)), several=len(wanted) > 1)
    frames: list[Frame] = []
    for one, own in zip(wanted, lanes, strict=True):
        with naming(one.settings.name):
            frames.append(_frame(host, one, own))
    address = wanted[0].settings.metrics.address
    host.serve(address, {frame.settings.name: frame.health for frame in frames})
    return frames


def _frame(host: Host, wanted: Wanted, lanes: tuple[Lane, ...]) -> Frame:
    settings, kafka, launch = wanted.settings, wanted.kafka, host.launch
    metrics = host.metrics(settings, wanted.sinks)
    encoder = host.encoder(settings, metrics)
    if launch.recovery is not None:
        keys = tuple(lane.key for lane in lanes)
        identity = StoreIdentity(keys, encoder.name, encoder.fingerprint)
        check_store(launch.recovery, identity, settings.name if host.several else "")
    check_model(kafka, lanes, encoder.name, encoder.fingerprint)
    stores = wanted.tables(settings, encoder)
    for store in stores.values():
        store.ensure()
    durable = {name: store.progress for name, store in stores.items()}
    board = Board({"topic": _Committed(kafka), **durable}, ("topic", *wanted.sinks))
    watchdog = Watchdog(end=ending_of(settings.name))
    health = FlowHealth(
        board,
        # In a cluster, tables may have their writers in other processes.
        ("topic",) if launch.cluster else board.sinks,
        settings.metrics.stalled_s,
        kafka.bootstrap_servers,
        watchdog,
        metrics,
        pipeline=settings.name,
    )
    registry = registry_of(
        settings,
        pause=lambda seconds: host.shutdown.wait(seconds, "the schema registry"),
        told=health.registry_away,
    )
    return Frame(
        settings,
        kafka,
        lanes,
        wanted.topics,
        encoder,
        stores,
        metrics,
        board,
        health,
        watchdog,
        host,
        tracing_of(settings, kafka.application_id) or NO_SPANS,
        host.guard(settings.recovery.suspects, kafka.application_id),
        registry,
    )


def settle() -> None:
    """What is there by now stays: the collector need not look through it again and again."""
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY)


def lanes_of(kafka: KafkaConfig, topics: Topics) -> tuple[Lane, ...]:
    """The source topics' partitions; waits for a broker that is away.

    Raises:
        BrokerError: The broker can't be reached.
        SourceError: A topic that the settings name is missing.
    """
    named = [*topics.sources, *topics.outputs]
    found = kafka.partitions({topic for _, topic in named})
    for setting, topic in named:
        if topic not in found:
            raise SourceError(
                f"{setting}: {topic}: there is no such topic on "
                f"{kafka.bootstrap_servers}; make it: headrace topics create"
            )
    return tuple(Lane(topic, p) for _, topic in topics.sources for p in found[topic])


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
