"""The controls: the model alone, in one process and one thread, without Kafka or a table.

They share the flow's bundle and runtimes, and nothing else of its code: what its tokenising,
sorting and cutting cost or save shows against them.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from tokenizers import Tokenizer

from flows.access import model_source_of
from flows.settings import load
from harness.process import ROOT
from operators.model import describe, open_bundle
from operators.model.runtime import open_runtime

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from operators.model.runtime import Runtime

__all__ = ["AUTO", "BATCH_TOKENS", "FP32", "NAIVE", "NAIVE_ROWS", "Control", "Pass"]

NAIVE: Final = "naive"
FP32: Final = "fp32"
AUTO: Final = "auto"

NAIVE_ROWS: Final = 32
BATCH_TOKENS: Final = 512
"""Padded tokens of a call, at most; a longer text makes a call of its own."""

_REFERENCE: Final = ("onnxruntime", "fp32")


@dataclass(frozen=True, slots=True)
class Pass:
    """Some texts, encoded once by one process.

    Attributes:
        docs: Texts.
        tokens: Their tokens, as the model takes them.
        padded: The same with padding.
        started: When it began; by the clock that all processes share.
        ended: When it ended.
        cpu_s: CPU-seconds of the process, all its threads.
    """

    docs: int
    tokens: int
    padded: int
    started: float
    ended: float
    cpu_s: float


class Control:
    """Encodes texts by the flow's model: as fast as it can be done, and as others do.

    Args:
        environ: The model's settings, as environment variables.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        settings = load(environ, ROOT)
        self._source = model_source_of(settings)
        self._asked = (settings.model.runtime, settings.model.precision)
        self._least_agreement = settings.model.least_agreement
        self._bundle = open_bundle(self._source)
        self._tokenizer = Tokenizer.from_file(str(self._bundle.tokenizer_file))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self._bundle.max_tokens)
        self._runtimes: dict[tuple[str, str], Runtime] = {}

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
        runtime = self._runtime(subject)
        cpu, started = time.process_time(), time.time()
        rows = [one.ids for one in self._tokenizer.encode_batch_fast(texts)]
        groups = _as_they_come(rows) if subject == NAIVE else _sorted(rows)
        padded = sum(self._call(runtime, group) for group in groups)
        ended = time.time()
        cpu_s = time.process_time() - cpu
        return Pass(len(texts), sum(map(len, rows)), padded, started, ended, cpu_s)

    def _call(self, runtime: Runtime, rows: Sequence[Sequence[int]]) -> int:
        ids, mask = _padded(rows, self._bundle.manifest.pad_id)
        runtime.run(ids, mask)
        return ids.size

    def _runtime(self, subject: str) -> Runtime:
        candidate = _REFERENCE
        if subject == AUTO:
            found = self.describe()
            candidate = found["runtime"], found["precision"]
        if candidate not in self._runtimes:
            self._runtimes[candidate] = open_runtime(self._bundle, candidate)
        return self._runtimes[candidate]


def _as_they_come(rows: list[list[int]]) -> Iterator[list[list[int]]]:
    for first in range(0, len(rows), NAIVE_ROWS):
        yield rows[first : first + NAIVE_ROWS]


def _sorted(rows: list[list[int]]) -> Iterator[list[list[int]]]:
    """By length, in calls of at most `BATCH_TOKENS` padded tokens."""
    group: list[list[int]] = []
    for row in sorted(rows, key=len):
        if group and (len(group) + 1) * len(row) > BATCH_TOKENS:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _padded(
    rows: Sequence[Sequence[int]], pad_id: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and mask: int64 [rows, longest]."""
    ids = np.full((len(rows), max(map(len, rows))), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask
