"""The controls: the model alone, in one process and one thread, without Kafka or a table."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from flows.parts import model_source_of
from flows.settings import load
from harness.process import ROOT
from operators.batching import CostModel
from operators.model import Encoder, describe, load_encoder, open_bundle, open_runtime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from operators.model import ModelSource

__all__ = ["AUTO", "FP32", "NAIVE", "Control", "Pass"]

NAIVE: Final = "naive"
FP32: Final = "fp32"
AUTO: Final = "auto"

NAIVE_ROWS: Final = 32
_REFERENCE: Final = ("onnxruntime", "fp32")
# What a call costs if only their number counts: all texts go into one.
_ONE_CALL: Final = CostModel(call=1.0, token=0.0)
_NO_LIMIT: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Pass:
    """Some texts, encoded once by one process.

    Attributes:
        docs: Texts.
        tokens: Their tokens, as the model takes them.
        started: When it began; by the clock that all processes share.
        ended: When it ended.
        cpu_s: CPU-seconds of the process, all its threads.
    """

    docs: int
    tokens: int
    started: float
    ended: float
    cpu_s: float


class Control:
    """Encodes texts by the flow's own model, as the flow does and as others would.

    Args:
        environ: The model's settings, as environment variables.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        settings = load(environ, ROOT)
        self._source = model_source_of(settings)
        self._asked = (settings.model.runtime, settings.model.precision)
        self._least_agreement = settings.model.least_agreement
        self._tokens = settings.batch.tokens
        self._encoders: dict[str, Encoder] = {}

    def describe(self) -> dict[str, Any]:
        """The model, and the runtime that `auto` takes on this machine."""
        runtime, precision = self._asked
        return describe(
            self._source,
            runtime=runtime,
            precision=precision,
            least_agreement=self._least_agreement,
        )

    def run(self, subject: str, texts: Sequence[str]) -> Pass:
        """Encodes texts: tokenised, cut into calls, put through the model."""
        encoder = self._encoder(subject)
        rows = NAIVE_ROWS if subject == NAIVE else max(1, len(texts))
        groups = [texts[first : first + rows] for first in range(0, len(texts), rows)]
        cpu, started = time.process_time(), time.time()
        tokens = sum(one.tokens for group in groups for one in encoder.encode(group))
        ended = time.time()
        return Pass(len(texts), tokens, started, ended, time.process_time() - cpu)

    def _encoder(self, subject: str) -> Encoder:
        if subject not in self._encoders:
            self._encoders[subject] = self._loaded(subject)
        return self._encoders[subject]

    def _loaded(self, subject: str) -> Encoder:
        if subject == NAIVE:
            return _naive(self._source)
        runtime, precision = self._asked if subject == AUTO else _REFERENCE
        return load_encoder(
            self._source,
            runtime=runtime,
            precision=precision,
            least_agreement=self._least_agreement,
            batch_tokens=self._tokens,
        )


def _naive(source: ModelSource) -> Encoder:
    """One call for each group that it is given, padded to the longest."""
    bundle = open_bundle(source)
    runtime = open_runtime(bundle, _REFERENCE)
    return Encoder(bundle, runtime, _ONE_CALL, batch_tokens=_NO_LIMIT)
