"""What the steps of a flow and the HTTP services tell a tracer; nothing, where there is none.

OpenTelemetry itself is behind `telemetry.tracing`, which is only imported where spans are sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from operators.records import DocumentBatch, OutcomeBatch, RecordBatch
    from telemetry.tracing import Tracing

__all__ = ["NO_SPANS", "NO_STAGE", "Spans", "StageName", "StageSpan", "tracing_to"]

StageName = Literal["decode", "embed", "topic transaction", "table commit"]


class StageSpan(Protocol):
    """A stage that is under way."""

    def passed_on(self, batches: Sequence[OutcomeBatch]) -> Sequence[OutcomeBatch]:
        """The batches, whose headers name the stage's spans where their records are followed."""

    def end(self) -> None:
        """The stage is done."""


class Spans(Protocol):
    """A tracer."""

    def decoding(
        self, step: Callable[[RecordBatch], DocumentBatch]
    ) -> Callable[[RecordBatch], DocumentBatch]:
        """The step that decodes, which also chooses the records that are followed."""

    def embedding(
        self, step: Callable[[Sequence[DocumentBatch]], Sequence[OutcomeBatch]]
    ) -> Callable[[Sequence[DocumentBatch]], Sequence[OutcomeBatch]]:
        """The step that embeds."""

    def begin(self, stage: StageName, batches: Sequence[OutcomeBatch]) -> StageSpan:
        """A stage begins with some batches."""

    def close(self) -> None:
        """Send what is left, for a moment; never raises."""


class _NoStage:
    def passed_on(self, batches: Sequence[OutcomeBatch]) -> Sequence[OutcomeBatch]:
        return batches

    def end(self) -> None:
        pass


class _NoSpans:
    def decoding(
        self, step: Callable[[RecordBatch], DocumentBatch]
    ) -> Callable[[RecordBatch], DocumentBatch]:
        return step

    def embedding(
        self, step: Callable[[Sequence[DocumentBatch]], Sequence[OutcomeBatch]]
    ) -> Callable[[Sequence[DocumentBatch]], Sequence[OutcomeBatch]]:
        return step

    def begin(self, stage: StageName, batches: Sequence[OutcomeBatch]) -> StageSpan:  # noqa: ARG002
        return NO_STAGE

    def close(self) -> None:
        pass


NO_STAGE: Final[StageSpan] = _NoStage()
"""A stage that is not recorded."""

NO_SPANS: Final[Spans] = _NoSpans()
"""Where nothing is traced."""


def tracing_to(endpoint: str, sample: float, service: str) -> Tracing | None:
    """What makes spans and sends them; None where there is no collector to send them to.

    Args:
        endpoint: Where it takes OTLP over HTTP; empty for none.
        sample: The share of traces that are recorded, of those that begin here.
        service: The name of this program in the traces.
    """
    if not endpoint:
        return None
    from telemetry.tracing import Tracing  # noqa: PLC0415 - who does not trace loads nothing of it

    return Tracing(endpoint, sample, service)
