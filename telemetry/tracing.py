"""Spans to a collector, by OpenTelemetry: the one module that knows of it.

A stage of the flow makes one span for all that it takes at once, with links to the records of it
that are followed; and for each of those a span in the record's own trace, with a link back. So one
request can be read from end to end in its own trace, and what it shared each stage with is one
step away. Which records are followed is chosen once, where they are decoded, and is bounded: a
million records of sampled traces do not make a million spans.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from dataclasses import replace
from importlib.metadata import version
from itertools import islice
from random import random
from typing import TYPE_CHECKING, Final

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import (
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from operators.traces import TraceParent, parse_traceparent, sampled, with_traceparent
from telemetry.limited import LimitedLog
from telemetry.spans import NO_STAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer, TraceState
    from opentelemetry.util.types import Attributes

    from operators.records import DocumentBatch, OutcomeBatch, RecordBatch
    from telemetry.spans import StageName, StageSpan

__all__ = ["MOST_AT_ONCE", "MOST_LINKS", "MOST_OF_A_BATCH", "MOST_PER_S", "Tracing"]

MOST_OF_A_BATCH: Final = 16
"""How many records of a batch are followed."""

MOST_PER_S: Final = 10.0
"""How many records a second a process follows. Each can cost eight spans, of some 200 µs with
sending; and a bulk may have 100,000 lines in one sampled trace."""

MOST_AT_ONCE: Final = 32
"""How many it follows after a while without any."""

MOST_LINKS: Final = 64
"""How many records have a span in a stage that takes several batches at once."""

CLOSE_S: Final = 2.0
"""For how long the end of a process waits for a collector."""

_KINDS: Final[Mapping[StageName, SpanKind]] = {
    "decode": SpanKind.CONSUMER,
    "embed": SpanKind.INTERNAL,
    "topic transaction": SpanKind.PRODUCER,
    "table commit": SpanKind.CLIENT,
}

log = structlog.get_logger(__name__)


class Tracing:
    """Makes spans and sends them, in a thread of its own.

    Args:
        endpoint: Where a collector takes OTLP over HTTP.
        sample: The share of traces that are recorded, of those that begin here.
        service: The name of this program in the traces; `OTEL_SERVICE_NAME` wins.
        exporter: What sends spans, instead.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        endpoint: str,
        sample: float,
        service: str,
        exporter: SpanExporter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        _keep_quiet()
        self._sample = sample
        self._allowance = _Allowance(MOST_PER_S, MOST_AT_ONCE, clock)
        self._provider = TracerProvider(
            sampler=ParentBased(_OfRequests(sample)),
            resource=_resource(service),
            shutdown_on_exit=False,
        )
        sending = BatchSpanProcessor(exporter or OTLPSpanExporter(endpoint))
        self._provider.add_span_processor(sending)
        self._tracer = self._provider.get_tracer("headrace", version("headrace"))
        atexit.register(self.close)

    def decoding(
        self, step: Callable[[RecordBatch], DocumentBatch]
    ) -> Callable[[RecordBatch], DocumentBatch]:
        """The step that decodes, which also chooses the records that are followed."""

        def decode(batch: RecordBatch) -> DocumentBatch:
            began = time.time_ns()
            documents = step(batch)
            followed = self._followed(documents) if documents.headers else {}
            if followed:
                documents = replace(documents, traces=followed)
            if len(documents):
                self._begin("decode", [documents], began).end()
            return documents

        return decode

    def embedding(
        self, step: Callable[[Sequence[DocumentBatch]], Sequence[OutcomeBatch]]
    ) -> Callable[[Sequence[DocumentBatch]], Sequence[OutcomeBatch]]:
        """The step that embeds."""

        def embed(batches: Sequence[DocumentBatch]) -> Sequence[OutcomeBatch]:
            span = self._begin("embed", batches)
            outcomes = step(batches)
            span.end()
            return outcomes

        return embed

    def begin(self, stage: StageName, batches: Sequence[OutcomeBatch]) -> StageSpan:
        """A stage begins with some batches."""
        return self._begin(stage, batches)

    def request(self, method: str, traceparent: bytes | None) -> _Request:
        """A request is to be answered.

        Args:
            method: GET or another of HTTP's.
            traceparent: The header that it came with, if any.
        """
        parent = parse_traceparent(traceparent)
        span = self._tracer.start_span(
            method,
            _context_of(parent),
            SpanKind.SERVER,
            {"http.request.method": method},
        )
        return _Request(span, method, parent)

    def close(self) -> None:
        """Send what is left, for a moment; never raises."""
        atexit.unregister(self.close)
        # In a thread that the process does not wait for: a collector may be away.
        ending = threading.Thread(target=self._provider.shutdown, name="traces end", daemon=True)
        ending.start()
        ending.join(CLOSE_S)

    def _followed(self, documents: DocumentBatch) -> Mapping[int, TraceParent]:
        found = sampled(documents.headers, MOST_OF_A_BATCH)
        return dict(islice(found.items(), self._allowance.take(len(found)))) if found else {}

    def _begin(
        self,
        stage: StageName,
        batches: Sequence[DocumentBatch | OutcomeBatch],
        began: int | None = None,
    ) -> StageSpan:
        followed = any(batch.traces for batch in batches)
        # Drawn here, at a thirtieth of what a span costs that is then not recorded.
        if not followed and random() >= self._sample:  # noqa: S311 - nothing to keep secret
            return NO_STAGE
        return _Stage(self._tracer, stage, batches, began or time.time_ns())


class _Stage:
    """The spans of one stage: that of all batches, and those of the records that are followed."""

    def __init__(
        self,
        tracer: Tracer,
        name: StageName,
        batches: Sequence[DocumentBatch | OutcomeBatch],
        began: int,
    ) -> None:
        followed = islice(_followed_in(batches), MOST_LINKS)
        places = [(number, index, batches[number].traces[index]) for number, index in followed]
        kind = _KINDS[name]
        self._whole = tracer.start_span(
            name,
            _NO_PARENT,
            kind,
            {
                "messaging.system": "kafka",
                "messaging.batch.message_count": sum(map(len, batches)),
                "headrace.lanes": sorted({str(batch.lane) for batch in batches}),
            },
            [Link(_span_context(parent)) for *_, parent in places],
            began,
        )
        back = [Link(self._whole.get_span_context())]
        self._own = {
            (number, index): tracer.start_span(
                name, _context_of(parent), kind, _place(batches[number], index), back, began
            )
            for number, index, parent in places
        }

    def passed_on(self, batches: Sequence[OutcomeBatch]) -> Sequence[OutcomeBatch]:
        """The batches, whose headers name the spans of the records that are followed.

        Args:
            batches: Those that the stage began with.
        """
        if not self._own:
            return batches
        return [self._renamed(batch, number) for number, batch in enumerate(batches)]

    def end(self) -> None:
        """The stage is done."""
        ended = time.time_ns()
        for span in self._own.values():
            span.end(ended)
        self._whole.end(ended)

    def _renamed(self, batch: OutcomeBatch, number: int) -> OutcomeBatch:
        told = {
            batch.offsets[index]: _parent_of(self._own[number, index])
            for index in batch.traces
            if (number, index) in self._own
        }
        return _with_parents(batch, told) if told else batch


class _Request:
    """One request's span.

    Attributes:
        traceparent: The header of what is written for it; None for none.
        ids: What its lines in the log are bound to.
    """

    def __init__(self, span: Span, method: str, parent: TraceParent | None) -> None:
        self._span = span
        self._method = method
        # Where nothing is recorded, the trace goes on as it came.
        named = _parent_of(span) if span.is_recording() else parent
        self.traceparent = None if named is None else str(named)
        self.ids: Mapping[str, str] = (
            {} if named is None else {"trace_id": named.trace_id, "span_id": named.span_id}
        )

    def end(self, route: str, status: int) -> None:
        """It has been answered."""
        self._span.update_name(f"{self._method} {route}")
        self._span.set_attributes({"http.route": route, "http.response.status_code": status})
        if status >= 500:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class _OfRequests(Sampler):
    """Records a share of the requests; of stages there are only spans where they are recorded.

    Args:
        share: Of requests that begin a trace.
    """

    def __init__(self, share: float) -> None:
        self._ratio = TraceIdRatioBased(share)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Whether a span without parent is recorded."""
        if kind is not SpanKind.SERVER:
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, trace_state)
        return self._ratio.should_sample(parent_context, trace_id, name, kind, attributes, links)

    def get_description(self) -> str:
        """What it does."""
        return f"requests by {self._ratio.get_description()}"


class _Allowance:
    """How many more records may be followed.

    Args:
        per_s: So many a second.
        at_once: After a while without any.
        clock: Seconds that never go back.
    """

    def __init__(self, per_s: float, at_once: int, clock: Callable[[], float]) -> None:
        self._per_s = per_s
        self._at_once = at_once
        self._clock = clock
        self._lock = threading.Lock()
        self._left = float(at_once)
        self._at = clock()

    def take(self, wanted: int) -> int:
        """How many of those that are wanted may be."""
        with self._lock:
            now = self._clock()
            self._left = min(self._at_once, self._left + (now - self._at) * self._per_s)
            self._at = now
            taken = min(wanted, int(self._left))
            self._left -= taken
        return taken


class _Complaints(logging.Handler):
    """What OpenTelemetry has to say, as a line of ours, once a minute."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._log = LimitedLog(log)

    def emit(self, record: logging.LogRecord) -> None:
        """Tell it."""
        told = " ".join(record.getMessage().split())
        self._log.warning("spans not sent", stage="traces", error=told)


def _keep_quiet() -> None:
    theirs = logging.getLogger("opentelemetry")
    theirs.propagate = False
    theirs.handlers = [_Complaints()]


def _resource(service: str) -> Resource:
    own: dict[str, str | int] = {
        "service.name": service,
        "service.version": version("headrace"),
        "process.pid": os.getpid(),
    }
    return Resource(own).merge(OTELResourceDetector().detect())


_NO_PARENT: Final = set_span_in_context(NonRecordingSpan(SpanContext(0, 0, is_remote=False)))


def _span_context(parent: TraceParent) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if parent.is_sampled else TraceFlags.DEFAULT)
    return SpanContext(
        int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=flags
    )


def _context_of(parent: TraceParent | None) -> Context:
    if parent is None:
        return _NO_PARENT
    return set_span_in_context(NonRecordingSpan(_span_context(parent)))


def _parent_of(span: Span) -> TraceParent:
    found = span.get_span_context()
    return TraceParent(f"{found.trace_id:032x}", f"{found.span_id:016x}", found.trace_flags.sampled)


def _followed_in(
    batches: Sequence[DocumentBatch | OutcomeBatch],
) -> Iterator[tuple[int, int]]:
    """Each record that is followed: its batch's number, and its index in that."""
    return ((number, index) for number, batch in enumerate(batches) for index in batch.traces)


def _place(batch: DocumentBatch | OutcomeBatch, index: int) -> dict[str, str | int]:
    """Where a record was read."""
    return {
        "messaging.system": "kafka",
        "messaging.destination.name": batch.lane.topic,
        "messaging.destination.partition.id": str(batch.lane.partition),
        "messaging.kafka.offset": batch.offsets[index],
    }


def _with_parents(batch: OutcomeBatch, told: Mapping[int, TraceParent]) -> OutcomeBatch:
    """A batch, and what stands beside it, whose headers name those spans, by offset."""
    headers = dict(batch.headers)
    for index in batch.traces:
        parent = told.get(batch.offsets[index])
        if parent is not None:
            headers[index] = with_traceparent(headers[index], parent)
    beside = None if batch.beside is None else _with_parents(batch.beside, told)
    return replace(batch, headers=headers, beside=beside)
