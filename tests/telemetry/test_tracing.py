from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from harness.process import ROOT
from operators.documents import Decoder
from operators.records import RecordBatch
from operators.traces import parse_traceparent, sampled
from telemetry.spans import NO_SPANS, tracing_to
from telemetry.tracing import MOST_AT_ONCE, MOST_LINKS, MOST_OF_A_BATCH, MOST_PER_S, Tracing
from tests.samples import LANE, embedding, outcomes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from operators.records import Headers, OutcomeBatch


class Traced:
    """Tracing whose spans can be looked at."""

    def __init__(self, sample: float = 0.0) -> None:
        self.now = 0.0
        self._kept = InMemorySpanExporter()
        self.tracing = Tracing("", sample, "test", self._kept, lambda: self.now)

    def spans(self) -> list[ReadableSpan]:
        """All that have ended."""
        self.tracing._provider.force_flush()
        return list(self._kept.get_finished_spans())

    def decoded(self, headers: Sequence[Headers]) -> Any:
        """A batch of documents with those headers, decoded."""
        n = len(headers)
        batch = RecordBatch(
            LANE,
            0,
            n,
            list(range(n)),
            [5] * n,
            [b"k"] * n,
            [b'{"text": "t"}'] * n,
            list(headers),
        )
        return self.tracing.decoding(Decoder())(batch)


@pytest.fixture
def traced() -> Iterator[Traced]:
    """Tracing in which nothing is recorded that does not come sampled."""
    made = Traced()
    yield made
    made.tracing.close()


def header(number: int, flags: str = "01") -> Headers:
    """The header of a span."""
    return (("traceparent", f"00-{number + 1:032x}-{number + 1:016x}-{flags}".encode()),)


def followed(number: int, first: int = 0) -> OutcomeBatch:
    """Outcomes of records, each in a sampled trace of its own."""
    rows = [embedding(f"{i}", headers=header(i)) for i in range(first, first + number)]
    batch = outcomes(rows, first)
    return replace(batch, traces=sampled(batch.headers, number))


def test_a_batch_is_one_span_and_a_followed_record_one_beside(traced: Traced) -> None:
    """The batch's span has a trace of its own and links to the record's, whose span links back."""
    documents = traced.decoded([(), header(6), header(7, "00")])
    assert set(documents.traces) == {1}
    own, whole = sorted(traced.spans(), key=lambda span: span.parent is None)
    assert (whole.name, own.name, whole.kind) == ("decode", "decode", SpanKind.CONSUMER)
    assert own.parent is not None
    assert (own.parent.trace_id, own.parent.span_id, own.context.trace_id) == (7, 7, 7)
    assert [link.context.trace_id for link in whole.links] == [7]
    assert [link.context.span_id for link in own.links] == [whole.context.span_id]
    assert whole.context.trace_id != 7
    assert dict(whole.attributes or {})["messaging.batch.message_count"] == 3
    assert dict(own.attributes or {})["messaging.kafka.offset"] == 1


def test_records_without_a_sampled_trace_make_no_spans(traced: Traced) -> None:
    """Without headers, or with traces that are not recorded, nothing is sent at a share of 0."""
    traced.decoded([()] * 50)
    traced.decoded([header(i, "00") for i in range(50)])
    traced.tracing.begin("table commit", [outcomes([embedding("a")])]).end()
    assert traced.spans() == []


def test_batches_are_recorded_by_share() -> None:
    """With a share of 1 each batch has a span, though no record of it is followed."""
    traced = Traced(1.0)
    traced.decoded([()] * 50)
    assert [span.name for span in traced.spans()] == ["decode"]
    traced.tracing.close()


def test_few_records_of_a_batch_are_followed(traced: Traced) -> None:
    """However many are sampled: a million records make no million spans."""
    documents = traced.decoded([header(i) for i in range(200)])
    assert list(documents.traces) == list(range(MOST_OF_A_BATCH))
    assert len(traced.spans()) == MOST_OF_A_BATCH + 1


def test_few_records_a_second_are_followed(traced: Traced) -> None:
    """The first ones are; then as many as time allows, whatever comes."""

    def count() -> int:
        return sum(len(traced.decoded([header(i) for i in range(16)]).traces) for _ in range(50))

    assert count() == MOST_AT_ONCE
    assert count() == 0
    traced.now += 0.5
    assert count() == MOST_PER_S / 2


def test_links_are_bounded(traced: Traced) -> None:
    """A commit of many batches has links, and spans, of the first records alone."""
    traced.tracing.begin("table commit", [followed(16, 16 * n) for n in range(20)]).end()
    spans = traced.spans()
    assert len(spans) == MOST_LINKS + 1
    assert max(len(span.links) for span in spans) == MOST_LINKS


def test_the_output_names_the_transaction(traced: Traced) -> None:
    """What is passed on has the record's trace and the span of its transaction as parent."""
    batches = [outcomes([embedding("x", headers=header(50, "00"))]), followed(2, 1)]
    batches[1] = replace(batches[1], beside=followed(1, 2))
    stage = traced.tracing.begin("topic transaction", batches)
    first, second = stage.passed_on(batches)
    stage.end()
    assert first is batches[0]
    assert second.slice(0, 2).offsets == batches[1].offsets
    spans = {span.context.trace_id: span for span in traced.spans()}
    for index, number in enumerate((1, 2)):
        [(name, told)] = second.headers[index]
        parent = parse_traceparent(told)
        assert name == "traceparent"
        assert parent is not None
        assert int(parent.trace_id, 16) == number + 1
        assert int(parent.span_id, 16) == spans[number + 1].context.span_id
        assert parent.is_sampled
    assert second.beside is not None
    assert second.beside.headers[0] == second.headers[1]


def test_traces_go_with_their_records(traced: Traced) -> None:
    """A slice of a batch has the traces of its records, and of no others."""
    batch = followed(4)
    assert {i: p.trace_id[-1] for i, p in batch.slice(1, 3).traces.items()} == {0: "2", 1: "3"}
    tail = batch.since(3)
    assert tail is not None
    assert {i: p.trace_id[-1] for i, p in tail.traces.items()} == {0: "4"}
    assert traced.spans() == []


def test_a_request_goes_on_in_its_trace(traced: Traced) -> None:
    """A sampled parent is followed whatever the share; an unsampled one goes on as it came."""
    [(_, given)] = header(3)
    request = traced.tracing.request("PUT", given)
    request.end("/v1/documents/{id}", 202)
    [span] = traced.spans()
    assert span.name == "PUT /v1/documents/{id}"
    assert span.parent is not None
    assert span.parent.span_id == 4
    assert request.traceparent == f"00-{4:032x}-{span.context.span_id:016x}-01"
    assert request.ids == {"trace_id": f"{4:032x}", "span_id": f"{span.context.span_id:016x}"}
    [(_, unsampled)] = header(3, "00")
    assert unsampled is not None
    assert traced.tracing.request("PUT", unsampled).traceparent == unsampled.decode()
    assert traced.tracing.request("PUT", None).traceparent is None


def test_nothing_is_loaded_where_nothing_is_traced() -> None:
    """Without a collector there is no tracing, steps are themselves, and no library is loaded."""
    assert tracing_to("", 1.0, "x") is None
    decode = Decoder()
    assert NO_SPANS.decoding(decode) is decode
    batches = [outcomes([embedding("a")])]
    assert NO_SPANS.begin("table commit", batches).passed_on(batches) is batches
    check = "import sys, flows.parts, serving.app; sys.exit('opentelemetry.sdk' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True, timeout=120)


AWAY = """
import time
from telemetry import logs
from telemetry.tracing import Tracing
logs.configure()
tracing = Tracing("http://127.0.0.1:9/v1/traces", 1.0, "test")
began = time.monotonic()
for _ in range(20_000):
    tracing.request("GET", None).end("/", 200)
took = time.monotonic() - began
time.sleep(3)
print(took)
"""


def test_a_collector_that_is_away_holds_up_nothing() -> None:
    """Spans are dropped, one line is logged, and the process ends in time, by itself."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", AWAY],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert time.monotonic() - began < float(done.stdout) + 30
    [line] = done.stderr.splitlines()
    assert '"spans not sent"' in line
    assert '"warning"' in line
