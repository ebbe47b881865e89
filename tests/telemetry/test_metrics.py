from __future__ import annotations

import time
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from telemetry.metrics import Metrics
from tests.samples import dead_letter, embedding, outcomes, tombstone

CONTRACT = """
records_consumed_total records_sent_total record_send_latency_ms consumer_lag
inference_latency_ms upsert_latency_ms index_size cpu_utilization freshness_ms dead_letters_total
tokens_total truncated_total embedding_cache_hits_total in_flight_records in_flight_bytes
"""
FURTHER = """
late_records_total freshness_target_missed padded_tokens_total broker_rtt_ms fetch_queue_records
fetch_queue_bytes send_queue_records resident_memory_bytes start_time_seconds build_info
index_builds_total index_build_seconds stalled chunks_reused_total
records_passed_over_total
"""


def shown(metrics: Metrics) -> str:
    """What Prometheus reads."""
    return generate_latest(metrics.registry).decode()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """One sample."""
    return metrics.registry.get_sample_value(f"headrace_{name}", labels)


def test_names_are_the_contracts() -> None:
    """The names that the contract lists are there, each with the prefix, and few others."""
    wanted = {f"headrace_{name}" for name in (CONTRACT + FURTHER).split()}
    found = {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metric in Metrics().registry.collect()
    }
    assert found == wanted


def test_committed_counts_by_sink_and_outcome() -> None:
    """Each sink counts its records; a dead letter is counted once, by its code."""
    metrics = Metrics()
    batch = outcomes([embedding("a"), tombstone("b"), dead_letter("bad_json"), embedding("c")])
    metrics.committed("topic", [batch], 0.02)
    metrics.committed("table", [batch], 0.03)
    for sink in ("topic", "table"):
        assert value(metrics, "records_sent_total", sink=sink, outcome="embedding") == 2
        assert value(metrics, "records_sent_total", sink=sink, outcome="tombstone") == 1
        assert value(metrics, "records_sent_total", sink=sink, outcome="dead_letter") == 1
        assert value(metrics, "freshness_ms_count", sink=sink) == 4
    assert value(metrics, "dead_letters_total", code="bad_json") == 1
    assert value(metrics, "record_send_latency_ms_sum") == pytest.approx(20)
    assert value(metrics, "upsert_latency_ms_sum") == pytest.approx(30)


def test_freshness_is_from_the_sources_timestamp() -> None:
    """Freshness is the time from a record's timestamp on, and never negative."""
    metrics = Metrics()
    now = int(time.time() * 1000)
    batch = replace(outcomes([tombstone("a"), tombstone("b")]), timestamps=[now - 5000, now + 9000])
    metrics.committed("topic", [batch], 0)
    total = value(metrics, "freshness_ms_sum", sink="topic")
    assert total is not None
    assert 5000 <= total < 6000


def test_model_counts() -> None:
    """Tokens, padding, cut texts, cache hits and inferences add up."""
    metrics = Metrics()
    metrics.embedded(tokens=10, truncated=1, cached=2, reused=3)
    metrics.embedded(tokens=5, truncated=0, cached=0, reused=4)
    metrics.inference(4, 64, 80, 0.5)
    names = ("tokens_total", "padded_tokens_total", "truncated_total", "embedding_cache_hits_total")
    assert [value(metrics, name) for name in names] == [15, 80, 1, 2]
    assert value(metrics, "chunks_reused_total") == 7
    assert value(metrics, "inference_latency_ms_sum") == 500


def test_two_sets_do_not_meet() -> None:
    """Metrics register nowhere but where they are told to."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    Metrics()
    assert metrics.registry is registry
    assert "headrace_cpu_utilization" in shown(metrics)


def test_index_builds_by_sink() -> None:
    """Each index that a table made or extended is counted, with its time."""
    metrics = Metrics()
    metrics.indexed("table", ())
    assert value(metrics, "index_builds_total", sink="table") is None
    metrics.indexed("table", (0.2, 70.0))
    metrics.indexed("users", (1.0,))
    assert value(metrics, "index_builds_total", sink="table") == 2
    assert value(metrics, "index_build_seconds_sum", sink="table") == pytest.approx(70.2)
    assert value(metrics, "index_build_seconds_bucket", sink="table", le="60.0") == 1
    assert value(metrics, "index_builds_total", sink="users") == 1
