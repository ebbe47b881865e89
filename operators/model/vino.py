"""OpenVINO: the one module that imports `openvino`, of the extra with its name."""

from __future__ import annotations

import queue
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import openvino

from operators.model.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["VERSION", "VinoRuntime", "has_bf16"]

VERSION: Final[str] = openvino.__version__
_HINTS: Final = {"fp32": "f32", "bf16": "bf16"}


@cache
def _core() -> openvino.Core:
    """The one core of this process, for as long as that lives.

    Each core puts up a signal stack for its thread and, when it goes, the one before it, even if
    that has gone by then: the next signal, such as SIGTERM, would end the process by SIGSEGV.
    """
    return openvino.Core()


def has_bf16() -> bool:
    """Whether this processor computes in bf16."""
    capabilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "BF16" in capabilities


class VinoRuntime:
    """Runs a bundle's graph on one thread; safe for several callers.

    Args:
        graph: a bundle's `model.onnx`.
        precision: of the arithmetic, `fp32` or `bf16`; at `int8` the graph says itself what is in
            int8, and the rest is in bf16 where the processor has it.

    Raises:
        ModelError: the graph can't be loaded.
    """

    def __init__(self, graph: Path, precision: str) -> None:
        self._graph = graph
        if precision == "int8":
            precision = "bf16" if has_bf16() else "fp32"
        self._settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # Pinned, the threads of two processes share one core.
            "ENABLE_CPU_PINNING": False,
        }
        # Compiled once for each caller at a time: one compiled for a thread serves one at once.
        self._models: list[Any] = []
        # Requests belong to nobody: a thread takes one and puts it back. One for each thread by
        # `threading.local` would die with the thread's Python state under a foreign scheduler.
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._free.put(self._request())

    def run(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Int64 [rows, tokens] each, to float32 [rows, dimension] of unit length."""
        try:
            request = self._free.get_nowait()
        except queue.Empty:
            request = self._request()
        try:
            request.infer(
                {"input_ids": input_ids, "attention_mask": attention_mask}, share_inputs=True
            )
            output = np.array(request.get_output_tensor(0).data, dtype=np.float32)
        finally:
            self._free.put(request)
        return output

    def _request(self) -> Any:  # noqa: ANN401 - OpenVINO ships no types
        try:
            model = _core().compile_model(str(self._graph), "CPU", self._settings)
        except RuntimeError as error:
            text = " ".join(str(error).split())
            raise ModelError(f"model graph: {self._graph} — can't be loaded ({text})") from error
        self._models.append(model)
        return model.create_infer_request()
