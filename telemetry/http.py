"""Metrics of the HTTP services; in files that worker processes share when there are several."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

__all__ = ["SHARED_FOLDER_VARIABLE", "HttpMetrics"]

SHARED_FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Read by Prometheus' client when it is imported: the folder that worker processes share."""

_MS: Final = (1, 2.5, 5, 10, 20, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)


class HttpMetrics:
    """What one worker counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "headrace_http_requests_total",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.latency = Histogram(
            "headrace_http_request_latency_ms",
            "Time from a request to the end of its answer, in ms.",
            ("route", "status"),
            buckets=_MS,
            registry=self.registry,
        )
        self.queued = Gauge(
            "headrace_http_queue_records",
            "Records that wait for the broker's acknowledgement.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.queued_bytes = Gauge(
            "headrace_http_queue_bytes",
            "Bytes of those records.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.broker_errors = Counter(
            "headrace_http_broker_errors_total",
            "Errors that the Kafka client has told, by its own code.",
            ("code",),
            registry=self.registry,
        )
        self.accepted = Counter(
            "headrace_http_accepted_records_total",
            "Records that the broker has acknowledged.",
            ("topic",),
            registry=self.registry,
        )
        self.refused = Counter(
            "headrace_http_refused_records_total",
            "Records that were not accepted, by code.",
            ("code",),
            registry=self.registry,
        )
        self.queries = Counter(
            "headrace_http_queries_total",
            "Queries, by where their vector came from: cache or model.",
            ("source",),
            registry=self.registry,
        )
        self.inferences = Counter(
            "headrace_http_inferences_total",
            "Calls to the model, each for all queries that waited.",
            registry=self.registry,
        )

    def broker_error(self, error: KafkaError) -> None:
        """The Kafka client has told an error, of a record or of its connections."""
        self.broker_errors.labels(error.name()).inc()

    def exposition(self) -> bytes:
        """All workers' metrics in Prometheus' text format."""
        if SHARED_FOLDER_VARIABLE not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)
