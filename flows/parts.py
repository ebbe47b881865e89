"""The parts of the flows, made from the settings and checked before anything runs."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from flows.access import (
    HOUR_MS,
    embedding_topics,
    kafka_of,
    recommending_tables,
    recommending_topics,
    table_of,
)
from flows.decoding import check_plan, decoder_of
from flows.frame import Frame, Wanted, frames_of, settle
from flows.host import naming
from flows.sampling import check_fit, fit_of, tried
from flows.settings import Settings, load
from operators.activity import ActivityStep, Fading
from operators.background import Ahead, Background
from operators.records import OutcomeBatch
from operators.views import ByTopic, StockDecoder, ViewDecoder
from operators.window import Windows
from sinks.messages import ViewMessages
from sinks.store import TableStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from operators.model import Encoder
    from operators.records import DocumentBatch, RecordBatch
    from sinks.routed import RoutedStore
    from sinks.table import TableSink
    from sinks.topic import TopicSink
    from sources.kafka import KafkaSource

__all__ = [
    "EmbeddingParts",
    "RecommendingParts",
    "embedding_parts",
    "recommending_parts",
]


@dataclass(frozen=True)
class EmbeddingParts:
    """What `flows.embed` wires together for a pipeline.

    Attributes:
        prefix: Of its steps' ids, where it shares the dataflow with others.
    """

    prefix: str
    source: KafkaSource
    decode: Callable[[RecordBatch], DocumentBatch]
    embed: Background[DocumentBatch, OutcomeBatch]
    windows: Windows
    topic: TopicSink
    table: TableSink


@dataclass(frozen=True)
class RecommendingParts:
    """What `flows.recommend` wires together."""

    source: KafkaSource
    decode: Callable[[RecordBatch], DocumentBatch]
    embed: Background[DocumentBatch, OutcomeBatch]
    windows: Windows
    topic: TopicSink
    products: TableSink
    users: TableSink


def embedding_parts() -> list[EmbeddingParts]:
    """The parts of each pipeline of `flows.embed`, from the environment and the settings file.

    Raises:
        HeadraceError: A setting is wrong, or what it names is missing or does not fit.
    """
    pipelines = load(os.environ, Path.cwd()).each()
    for settings in pipelines:
        with naming(settings.name):
            check_plan(settings)
    wanted = [
        Wanted(
            settings,
            kafka_of(settings),
            embedding_topics(settings),
            ("table",),
            _embedding_tables,
        )
        for settings in pipelines
    ]
    frames = frames_of(wanted)
    frames[0].shutdown.on_signals()
    parts: list[EmbeddingParts] = []
    for frame in frames:
        with naming(frame.settings.name):
            parts.append(_embedding_parts(frame))
    settle()
    return parts


def _embedding_tables(settings: Settings, encoder: Encoder) -> dict[str, TableStore | RoutedStore]:
    return {"table": table_of(settings, encoder)}


def _embedding_parts(frame: Frame) -> EmbeddingParts:
    settings = frame.settings
    decode = decoder_of(settings, frame.values)
    if setting := tried(settings):
        check_fit(fit_of(frame.kafka, frame.lanes, decode), setting, fresh=frame.is_fresh)
    # Of one topic a document stays in the lane of its key; else another may have written it.
    step = frame.embed("table", kept=len(settings.source.topics) == 1 and settings.source.by_key)
    embed = Background(frame.guarded(step), _nudge)
    windows = _windows(settings)
    return EmbeddingParts(
        f"{settings.name}-" if frame.host.several else "",
        frame.source(Ahead(embed, windows)),
        frame.decoder(decode),
        embed,
        windows,
        frame.topic_sink(frame.messages(settings.embeddings.topic)),
        frame.table_sink("table"),
    )


def recommending_parts() -> RecommendingParts:
    """The parts of `flows.recommend`, from the environment and the settings file.

    Raises:
        HeadraceError: A setting is wrong, or what it names is missing or does not fit.
    """
    settings = _single_chunks(load(os.environ, Path.cwd()))
    recommend = settings.recommend
    kafka = kafka_of(settings)
    [frame] = frames_of(
        [
            Wanted(
                settings,
                replace(kafka, application_id=f"{kafka.application_id}-recommend"),
                recommending_topics(settings),
                ("products", "users"),
                recommending_tables,
            )
        ]
    )
    frame.shutdown.on_signals()
    embed = Background(frame.guarded(_Recommending(frame)), _nudge)
    windows = _windows(settings)
    most = settings.source.max_record_bytes
    partitions = sum(lane.topic == recommend.views_topic for lane in frame.lanes)
    decoders: dict[str, Callable[[RecordBatch], DocumentBatch]] = {
        recommend.views_topic: ViewDecoder(
            partitions,
            recommend.popular_hours * HOUR_MS,
            most,
        ),
        recommend.inventory_topic: StockDecoder(most),
    }
    messages = ViewMessages(
        frame.messages(recommend.embeddings_topic),
        frame.messages(recommend.users_topic),
        recommend.views_topic,
        partitions,
    )
    parts = RecommendingParts(
        frame.source(Ahead(embed, windows)),
        frame.decoder(ByTopic(decoders)),
        embed,
        windows,
        frame.topic_sink(messages),
        frame.table_sink("products", text_index=False),
        # Last, so that a view read again for another sink is none that a user's state holds.
        frame.table_sink("users", ("topic", "products"), text_index=False, vector_index=False),
    )
    settle()
    return parts


class _Recommending:
    """Products embedded, then users moved.

    Args:
        frame: What both steps share.
    """

    def __init__(self, frame: Frame) -> None:
        recommend = frame.settings.recommend
        # Products are written by every lane.
        self._embed = frame.embed("products", kept=False)
        users = frame.tables["users"]
        assert isinstance(users, TableStore)  # no record names one
        self._activity = ActivityStep(
            frame.watchdog.ending(users.states),
            frame.board.written,
            Fading(recommend.half_life_hours * HOUR_MS, recommend.views),
            frame.view_bytes,
        )

    def __call__(self, batches: Sequence[DocumentBatch]) -> list[OutcomeBatch]:
        """The outcomes of all views and stocks at hand, a batch for each, in their order."""
        return self._activity(self._embed(batches))


def _single_chunks(settings: Settings) -> Settings:
    """The same with one vector for a text: a title is short, and a row of a product is one.

    Nothing is put before it either: it is the title itself.
    """
    model = settings.model.model_copy(update={"max_chunks": 1, "chunk_prefix": ""})
    return settings.model_copy(update={"model": model})


def _windows(settings: Settings) -> Windows:
    batch = settings.batch
    return Windows(batch.rows, timedelta(milliseconds=batch.wait_ms))


def _nudge(documents: DocumentBatch) -> OutcomeBatch | None:
    """What stands for a nudge behind the model; None for a batch that is none."""
    records = documents.records
    if not records.nudge:
        return None
    return OutcomeBatch(records.lane, records.end, records.end, 0, nudge=True)
