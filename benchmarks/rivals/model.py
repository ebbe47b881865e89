"""The model under sentence-transformers, on one thread.

`python -m benchmarks.rivals.model FOLDER` adds an int8 graph to a model's folder, as
sentence-transformers makes it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Read when the libraries are loaded: one thread, and no look at a hub for a local folder.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from sentence_transformers import SentenceTransformer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["GRAPH", "INT8_GRAPH", "Model", "quantize"]

GRAPH = "onnx/model.onnx"
INT8_GRAPH = "onnx/model_int8.onnx"


class Model:
    """Encodes texts, as many at once as it is given.

    Args:
        name: A hub id or a folder.
        backend: `onnx`, `onnx-int8` or `torch`.
    """

    def __init__(self, name: str, backend: str) -> None:
        torch.set_num_threads(1)
        if backend == "torch":
            self._model = SentenceTransformer(name, device="cpu")
            return
        self._model = _on_onnx(name, GRAPH if backend == "onnx" else INT8_GRAPH)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 [texts, dimension], in one call to the model."""
        found: NDArray[np.float32] = self._model.encode(
            list(texts),
            batch_size=len(texts),
            show_progress_bar=False,
            normalize_embeddings=True,
        )
        return found


def quantize(folder: Path) -> None:
    """Adds a dynamically quantised graph to a model's folder."""
    from sentence_transformers import export_dynamic_quantized_onnx_model  # noqa: PLC0415

    model = _on_onnx(str(folder), GRAPH)
    export_dynamic_quantized_onnx_model(model, _instructions(), str(folder), file_suffix="int8")


def _on_onnx(name: str, graph: str) -> SentenceTransformer:
    import onnxruntime  # noqa: PLC0415 - torch alone does without

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    settings: dict[str, Any] = {
        "provider": "CPUExecutionProvider",
        "session_options": options,
        "file_name": graph,
    }
    return SentenceTransformer(name, device="cpu", backend="onnx", model_kwargs=settings)


def _instructions() -> Any:  # noqa: ANN401 - a literal of sentence-transformers
    """What the graph is quantised for: the newest instructions that the processor has."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8").split() if info.exists() else []
    for flag, name in (("avx512_vnni", "avx512_vnni"), ("avx512f", "avx512"), ("avx2", "avx2")):
        if flag in flags:
            return name
    return "arm64"


if __name__ == "__main__":
    quantize(Path(sys.argv[1]))
