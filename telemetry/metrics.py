"""Metrics, by Prometheus' client; the names are part of the contract with users."""

from __future__ import annotations

import time
from collections import Counter as Counting
from itertools import chain
from typing import TYPE_CHECKING, Final

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from operators.views import MOVED
from telemetry.clients import ClientMetrics
from telemetry.freshness import FreshnessWatch
from telemetry.histogram import BatchHistogram
from telemetry.process import ProcessMetrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from operators.records import Outcome, OutcomeBatch

__all__ = ["Metrics"]

_MS: Final = (1, 2.5, 5, 10, 20, 30, 50, 75, 100, 150, 250, 500, 1000, 2500, 5000, 10_000, 60_000)
_INDEX_S: Final = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600)


class Metrics:
    """The metrics of one process, or of one of several pipelines in it.

    Args:
        registry: Where they are registered; a fresh one unless given.
        freshness_ms: How old a record may be when the topic has it, in milliseconds; a table
            has twice as long.
        tables: The sinks that are tables.
        clients_s: How often Kafka clients tell of themselves, in seconds; 0 for never.
        pipeline: Whose they are, where a process has several: that of the process are left out.

    Attributes:
        clients: Takes what they tell.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        freshness_ms: float = 100.0,
        tables: Iterable[str] = ("table",),
        clients_s: float = 0.0,
        pipeline: str = "",
    ) -> None:
        self.registry = registry or CollectorRegistry()
        self._watch = FreshnessWatch(
            {"topic": freshness_ms, **dict.fromkeys(tables, 2 * freshness_ms)}, pipeline=pipeline
        )
        self._define_flow()
        self._define_model()
        self._define_build()
        if not pipeline:
            ProcessMetrics(self.registry)
        self.clients = ClientMetrics(self.registry, clients_s)

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(f"headrace_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(f"headrace_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, labels: Sequence[str] = ()) -> Histogram:
        return Histogram(f"headrace_{name}", text, labels, buckets=_MS, registry=self.registry)

    def _define_flow(self) -> None:
        lane = ("topic", "partition")
        self.consumed = self._counter("records_consumed_total", "Records read.", lane)
        self.sent = self._counter("records_sent_total", "Records committed.", ("sink", "outcome"))
        self.passed = self._counter(
            "records_passed_over_total", "Records that the filter does not take.", ("topic",)
        )
        self.dead_letters = self._counter("dead_letters_total", "Dead letters.", ("code",))
        self.lag = self._gauge("consumer_lag", "Offsets not yet read.", lane)
        self.in_flight = self._gauge(
            "in_flight_records", "Records read and not yet in both sinks.", lane
        )
        self.in_flight_bytes = self._gauge(
            "in_flight_bytes", "Bytes of the records read and not yet in both sinks.", lane
        )
        self.send_latency = self._histogram(
            "record_send_latency_ms", "Time of one transaction, in ms."
        )
        self.upsert_latency = self._histogram(
            "upsert_latency_ms", "Time of one table commit, in ms."
        )
        self.freshness = BatchHistogram(
            "headrace_freshness_ms",
            "Source timestamp to committed, in ms.",
            "sink",
            _MS,
            self.registry,
        )
        self.late = self._counter(
            "late_records_total", "Records committed later than the freshness target.", ("sink",)
        )
        self.missed = self._gauge(
            "freshness_target_missed", "1 while most records are late, else 0.", ("sink",)
        )
        self.index_size = self._gauge(
            "index_size", "Rows of the table, tombstones included.", ("sink",)
        )
        self.index_builds = self._counter(
            "index_builds_total", "Indexes of the table made or brought up to date.", ("sink",)
        )
        self.index_seconds = Histogram(
            "headrace_index_build_seconds",
            "Time to make an index or to bring it up to date, in s.",
            ("sink",),
            buckets=_INDEX_S,
            registry=self.registry,
        )
        self.stalled = self._gauge(
            "stalled", "1 while there is something to do and nothing moves, else 0."
        )

    def _define_model(self) -> None:
        self.inference_latency = self._histogram(
            "inference_latency_ms", "Time of one inference, in ms."
        )
        self.tokens = self._counter("tokens_total", "Tokens that went into the model.")
        self.padded = self._counter("padded_tokens_total", "The same, with padding.")
        self.truncated = self._counter("truncated_total", "Texts longer than the model takes.")
        self.cache_hits = self._counter(
            "embedding_cache_hits_total", "Texts that needed no inference."
        )
        self.reused = self._counter(
            "chunks_reused_total", "Chunks of new versions whose vectors were there."
        )

    def _define_build(self) -> None:
        self.build = self._gauge(
            "build_info",
            "1; what runs is in the labels.",
            ("version", "model", "runtime", "precision"),
        )

    def embedded(self, tokens: int, truncated: int, cached: int, reused: int) -> None:
        """The embed step took a batch: see `operators.embed.Observer`."""
        self.tokens.inc(tokens)
        self.truncated.inc(truncated)
        self.cache_hits.inc(cached)
        self.reused.inc(reused)

    def passed_over(self, topic: str, records: int) -> None:
        """Records were passed over: see `operators.passing.SkipObserver`."""
        self.passed.labels(topic).inc(records)

    def inference(self, _rows: int, _tokens: int, padded: int, seconds: float) -> None:
        """The model was called once."""
        self.padded.inc(padded)
        self.inference_latency.observe(seconds * 1000)

    def indexed(self, sink: str, builds: Iterable[float]) -> None:
        """A table has made or extended indexes, each in so many seconds."""
        for seconds in builds:
            self.index_builds.labels(sink).inc()
            self.index_seconds.labels(sink).observe(seconds)

    def committed(self, sink: str, batches: Sequence[OutcomeBatch], seconds: float) -> None:
        """A sink has committed batches, in so many seconds."""
        latency = self.send_latency if sink == "topic" else self.upsert_latency
        latency.observe(seconds * 1000)
        stamps = np.fromiter(chain.from_iterable(b.timestamps for b in batches), np.float64)
        ages = np.maximum(time.time() * 1000 - stamps, 0.0)
        self.freshness.observe(sink, ages)
        verdict = self._watch.judge(sink, ages)
        self.late.labels(sink).inc(verdict.late)
        self.missed.labels(sink).set(verdict.missed)
        outcomes: Counting[Outcome] = Counting()
        for batch in batches:
            outcomes.update(batch.outcomes())
        for outcome, number in outcomes.items():
            self.sent.labels(sink, outcome.name.lower()).inc(number)
        if sink == "topic":
            for dead in chain.from_iterable(batch.dead.values() for batch in batches):
                if dead.code != MOVED:  # it is none: it comes again
                    self.dead_letters.labels(dead.code).inc()
