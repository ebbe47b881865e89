"""One worker's application: its parts, made from the settings, and its routers."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline

from clients.errors import BrokerError
from flows.access import (
    HOUR_MS,
    encoder_of,
    kafka_of,
    reading_store,
    recommending_tables,
    routed_tables,
    tracing_of,
)
from flows.decoding import own_form
from serving.auth import tokens_of
from serving.following import Following, Readers
from serving.guard import Guard
from serving.health import Readiness, health_router
from serving.ingest import Ingest, ingest_router
from serving.live import FlowMetrics, Live, live_router
from serving.observe import Observed
from serving.openapi import describe
from serving.page import page_router
from serving.problems import answer_problems
from serving.publisher import Limits, Publisher, producer_of
from serving.queries import Queries
from serving.recommend import Recommending, recommend_router
from serving.routed import RoutedSearch, RoutedTables
from serving.search import ModelCheck, Search, search_router
from serving.traced import Traced
from serving.vectors import QueryVectors
from sinks.latest import Latest
from sinks.products import Products
from sinks.search import TableReader, reranker
from telemetry.http import HttpMetrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from fastapi import FastAPI

    from clients.kafka import KafkaConfig
    from flows.settings import Settings
    from serving.live import Documents
    from serving.search import Model
    from telemetry.tracing import Tracing

__all__ = ["ReadyMade", "create_app"]

OUTAGE_S: Final = 2.0
"""For how long a look at the broker may take, in seconds: whoever asks looks again."""

TAGS: Final = [
    {"name": "ingest", "description": "Writes; each answered once the broker has acknowledged it."},
    {"name": "search", "description": "Searches of the table."},
    {"name": "live", "description": "How the stream stands."},
    {"name": "health", "description": "For whoever runs the service."},
]


@dataclass(frozen=True)
class ReadyMade:
    """Parts that are given instead of made from the settings."""

    model: Model | None = None
    tracing: Tracing | None = None


def create_app(settings: Settings, given: ReadyMade | None = None) -> FastAPI:
    """The application, with the parts of it that `serve.parts` names.

    Args:
        settings: The settings.
        given: What of it is there already.

    Raises:
        HeadraceError: The model can't be had, or a setting is wrong.
    """
    metrics = HttpMetrics()
    given = given or ReadyMade()
    made = _Made(settings, metrics, given)
    tracing = given.tracing or tracing_of(settings, f"{settings.kafka.application_id}-serve")
    # Its page of all routes brings what FastAPI's own would fetch from elsewhere.
    app = FastAPIOffline(
        title="Headrace",
        version=version("headrace"),
        summary="Documents and events in, searches out.",
        openapi_tags=TAGS,
        lifespan=_lifespan(made, tracing),
        redoc_url=None,
    )
    serve = settings.serve
    app.state.guard = Guard(tokens_of(settings.auth), serve.rate_limit, serve.max_body_bytes)
    answer_problems(app)
    if "search" in serve.parts:
        made.add_search(app)
    if "ingest" in serve.parts:
        made.add_ingest(app)
    app.include_router(health_router(Readiness(made.checks), metrics))
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    if serve.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(serve.cors_origins),
            allow_methods=["*"],
            allow_headers=["authorization", "content-type", "idempotency-key", "traceparent"],
        )
    app.add_middleware(Observed, metrics=metrics)
    if tracing is not None:
        app.add_middleware(Traced, tracing=tracing)
    return app


@dataclass
class _Shape:
    """What is known of a model that is not kept."""

    name: str
    fingerprint: str
    dimension: int


class _Made:
    """The parts, as they are made."""

    def __init__(self, settings: Settings, metrics: HttpMetrics, given: ReadyMade) -> None:
        self.checks: dict[str, Callable[[], None]] = {}
        self.limits = Limits(
            settings.serve.queue_records,
            settings.serve.queue_bytes,
            settings.source.max_record_bytes,
            settings.serve.delivery_timeout_s,
        )
        self.publisher: Publisher | None = None
        self.searching: Following | RoutedSearch | None = None
        self._settings = settings
        self._metrics = metrics
        self._given = given
        self._shape: _Shape | None = None

    def add_ingest(self, app: FastAPI) -> None:
        """Add what writes."""
        settings, serve = self._settings, self._settings.serve
        kafka = kafka_of(settings)
        self.publisher = Publisher(
            lambda: producer_of(kafka, self.limits, self._metrics.broker_error),
            self.limits,
            self._metrics,
        )
        ingest = Ingest(
            self.publisher,
            own_form(settings, "the ingest service (headrace serve search is without it)"),
            settings.source.topics[0],
            settings.recommend.views_topic,
            settings.recommend.inventory_topic,
            serve.max_body_bytes,
            serve.max_bulk_lines,
        )
        app.include_router(ingest_router(ingest))
        self.checks["broker"] = _BrokerCheck(replace(kafka, outage_s=OUTAGE_S), ingest.documents)

    def add_search(self, app: FastAPI) -> None:
        """Add what searches; the model is loaded now, the table opened when it is needed."""
        reranker()
        table = self._settings.table
        searching = self.searching = (
            self._routed() if table.routed else Following(self._settings, self._readers)
        )
        app.include_router(search_router(searching))
        recommend = self._settings.recommend
        recommended = (recommend.products_table, recommend.users_table)
        app.include_router(recommend_router(self._recommending(), recommended))
        app.include_router(live_router(self._live(searching), table.name))
        app.include_router(page_router())
        self.checks["table"] = searching.check_model

    def _readers(self, settings: Settings) -> Readers:
        model = self._model(settings)
        reader = TableReader(reading_store(settings))
        queries = self._queries(settings, model, lambda: reader.fence().progress)
        search = Search(reader, model, queries, settings.columns)
        return Readers(settings, search, Latest(reader))

    def _routed(self) -> RoutedSearch:
        settings = self._settings
        model = self._model(settings)
        tables = RoutedTables(routed_tables(settings), model)
        queries = self._queries(settings, model, tables.progress)
        return RoutedSearch(tables, queries, settings.columns)

    def _model(self, settings: Settings) -> Model:
        model = self._given.model or encoder_of(settings)
        if settings == self._settings:
            self._shape = _Shape(model.name, model.fingerprint, model.dimension)
        return model

    def _queries(
        self, settings: Settings, model: Model, progress: Callable[[], Mapping[str, int]]
    ) -> Queries:
        serve = settings.serve
        vectors = QueryVectors(
            lambda texts: model.encode_queries(list(texts)),
            serve.query_cache_entries,
            self._metrics,
        )
        return Queries(progress, vectors, settings.source.topics, serve.after_timeout_s)

    def _live(self, latest: Documents) -> Live:
        settings = self._settings
        topics = settings.source.topics
        address = settings.metrics.address
        flow = FlowMetrics(settings.serve.flow_metrics, address, topics, settings.name)
        kafka = replace(kafka_of(settings), outage_s=OUTAGE_S)
        return Live(flow, latest, _BrokerCheck(kafka, topics[0]))

    def _recommending(self) -> Recommending:
        # These tables have no alias: their model is that of the settings.
        model = self._shape or self._given.model or encoder_of(self._settings)
        tables = recommending_tables(self._settings, model)
        products, users = (TableReader(tables[sink]) for sink in ("products", "users"))
        popular_ms = self._settings.recommend.popular_hours * HOUR_MS
        return Recommending(users, Products(products, popular_ms), ModelCheck(users, model))


class _BrokerCheck:
    """Asks for the topic of documents; the others are only some users' need."""

    def __init__(self, kafka: KafkaConfig, topic: str) -> None:
        self._kafka = kafka
        self._topic = topic

    def __call__(self) -> None:
        if self._topic not in self._kafka.partitions({self._topic}):
            raise BrokerError(
                f"source.topics: {self._topic}: there is no such topic; make it: "
                "headrace topics create"
            )


def _lifespan(
    made: _Made, tracing: Tracing | None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def living(_: FastAPI) -> AsyncIterator[None]:
        if made.publisher is not None:
            made.publisher.start()
        with nullcontext() if made.searching is None else made.searching.running():
            yield
            if made.publisher is not None:
                await made.publisher.close()
        if tracing is not None:
            await asyncio.to_thread(tracing.close)

    return living
