"""ONNX Runtime: the one module that imports `onnxruntime`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnxruntime

from operators.model.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["VERSION", "OnnxRuntime"]

VERSION: Final[str] = onnxruntime.__version__
_FATAL_ONLY: Final = 4


class OnnxRuntime:
    """Runs a bundle's graph on the calling thread; safe for several threads.

    Args:
        graph: a bundle's graph, as a file or as its bytes.
        exact: computes what is in int8 in floats, and so the same on all processors. Those without
            instructions for it (VNNI) add up products in 16 bits, which may overflow.

    Raises:
        ModelError: the graph can't be loaded.
    """

    def __init__(self, graph: Path | bytes, *, exact: bool = False) -> None:
        options = onnxruntime.SessionOptions()
        # One thread, and parallelism by processes: threads of one call lose a fifth of the work.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Shapes vary all the time, so an arena would keep the largest of each for ever.
        options.enable_cpu_mem_arena = False
        options.log_severity_level = _FATAL_ONLY
        if exact:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                graph if isinstance(graph, bytes) else str(graph),
                options,
                providers=["CPUExecutionProvider"],
            )
        except Exception as error:
            # The runtime raises exceptions of its own that share no base.
            text = " ".join(str(error).split())
            named = "in memory" if isinstance(graph, bytes) else graph
            raise ModelError(f"model graph: {named} — can't be loaded ({text})") from error

    def run(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Int64 [rows, tokens] each, to float32 [rows, dimension] of unit length."""
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        output: NDArray[np.float32] = self._session.run(["embeddings"], feeds)[0]
        return output

    def probe(
        self, names: list[str], input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> list[NDArray[np.float32]]:
        """Other outputs of a graph that was given some, by name."""
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        found: list[NDArray[np.float32]] = self._session.run(names, feeds)
        return found
