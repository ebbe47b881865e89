"""One request, followed from HTTP through Kafka and flow to topic and table; and the logs of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.collector import Collector
from harness.server import service
from tests.brokers import read_all
from tests.integration.pipeline import Pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from confluent_kafka import Message

    from benchmarks.collector import Span
    from harness.broker import Broker

pytestmark = pytest.mark.kafka

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{CALLER}-01"
UNSAMPLED = f"00-{'1' * 32}-{CALLER}-00"
MARKER = "xyzzy"
STAGES = ("decode", "embed", "topic transaction", "table commit")


def lines_of(log: Path) -> list[dict[str, Any]]:
    """The lines of a log that are ours."""
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def traceparent_of(message: Message) -> str:
    """The span that a record names."""
    return dict(message.headers() or [])["traceparent"].decode()  # type: ignore[union-attr]


def test_one_request_is_followed(broker: Broker, tmp_path: Path) -> None:
    """Server and flow send spans of one trace, whose parents are right; the topic names the last.

    What is not sampled goes on as it came. The logs name a dead letter, and hold no text.
    """
    with Collector() as collector:
        settings = {
            "HEADRACE_TRACES__ENDPOINT": collector.endpoint,
            "HEADRACE_TRACES__SAMPLE": "0",
            "HEADRACE_SERVE__PARTS": "ingest",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        with Pipeline(broker, tmp_path, partitions=1, settings=settings) as pipeline:
            with service(tmp_path, pipeline.environment) as client:
                for identity, trace in (("a", SAMPLED), ("b", UNSAMPLED)):
                    answer = client.put(
                        f"/v1/documents/{identity}",
                        json={"text": f"a chair {MARKER}", "metadata": {"note": MARKER}},
                        headers={"traceparent": trace},
                    )
                    assert answer.status_code == 202, answer.text
                pipeline.wait(lambda: any("PUT" in span.name for span in collector.spans))
            own = [("event_id", b"e1"), ("user_id", b"u1"), ("traceparent", UNSAMPLED.encode())]
            pipeline.put_raw(b"c", f'{{"text": "{MARKER}", '.encode(), own)
            pipeline.settle()
            assert pipeline.flow.terminate() == [0]
        outputs = {m.key(): traceparent_of(m) for m in read_all(broker, pipeline.topics.embeddings)}
        name = pipeline.name
    check_spans(collector.spans, name)
    own_spans = {span.name: span for span in collector.spans if span.trace == TRACE}
    assert outputs[b"a"] == f"00-{TRACE}-{own_spans['topic transaction'].id}-01"
    assert outputs[b"b"] == UNSAMPLED
    logged = lines_of(tmp_path / "flow.log")
    [dead] = [line for line in logged if line["event"] == "dead letter"]
    wanted = {"code": "bad_json", "topic": name, "partition": 0, "offset": 2, "level": "info"}
    wanted |= {"stage": "topic", "event_id": "e1", "user_id": "u1", "trace_id": "1" * 32}
    assert wanted.items() <= dead.items()
    for log in ("flow.log", "server.log"):
        assert MARKER not in (tmp_path / log).read_text()


def check_spans(spans: list[Span], name: str) -> None:
    """The spans of the sampled request are those wanted, and of the other there are none."""
    own = {span.name: span for span in spans if span.trace == TRACE}
    server = own["PUT /v1/documents/{document_id}"]
    assert own.keys() == {server.name, *STAGES}
    assert (server.service, server.parent) == (f"{name}-serve", CALLER)
    assert server.fields["http.response.status_code"] == 202
    batches = {span.id: span for span in spans if span.trace != TRACE}
    for stage in STAGES:
        span = own[stage]
        assert (span.service, span.parent) == (name, server.id)
        assert (
            span.fields["messaging.destination.name"],
            span.fields["messaging.kafka.offset"],
        ) == (
            name,
            0,
        )
        [link] = span.links
        assert (batches[link].name, batches[link].parent) == (stage, "")
        assert batches[link].links == (server.id,)
    began = [own[stage].began for stage in STAGES]
    assert began[:3] == sorted(began[:3])
    assert own["embed"].ended <= own["table commit"].began <= own["table commit"].ended
    # Each batch of the sampled record, and nothing else.
    assert len(spans) == 1 + 2 * len(STAGES)
