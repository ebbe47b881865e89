"""From a transformer's graph to one that ends in unit vectors.

The graph that comes in gives token states [rows, tokens, width]. What is appended pools them over
the tokens, runs the model's dense layers, and normalises. What comes out has exactly the inputs
`input_ids` and `attention_mask` (int64 [rows, tokens]) and the output `embeddings`
(float32 [rows, dimension]). Or the whole graph is a look-up of token vectors, with the same ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from operators.model.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["ACTIVATIONS", "POOLINGS", "Dense", "Normalize", "finish", "look_up", "opset_of"]

POOLINGS: Final = ("cls", "max", "mean", "mean_sqrt_len", "lasttoken")
ACTIVATIONS: Final = ("Identity", "Tanh", "ReLU", "Sigmoid", "GELU")

_INPUTS: Final = ("input_ids", "attention_mask")
_OUTPUT: Final = "embeddings"
_STATES: Final = ("last_hidden_state", "token_embeddings")
_FLOATS: Final = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
# Of graphs that are made here; whatever runs transformers' graphs runs these.
_OPSET: Final = 14
_IR: Final = 8


@dataclass(frozen=True, slots=True)
class Dense:
    """A dense layer after pooling.

    Attributes:
        weight: float32 [outputs, inputs].
        bias: float32 [outputs], or none.
        activation: one of `ACTIVATIONS`.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    activation: str

    def __str__(self) -> str:
        outputs, inputs = self.weight.shape
        return f"{inputs}x{outputs} {self.activation}"


@dataclass(frozen=True, slots=True)
class Normalize:
    """Scaling to unit length between layers; at the very end it happens anyway."""

    def __str__(self) -> str:
        return "normalize"


@dataclass(slots=True)
class _Tail:
    """Nodes and constants to append to a graph, under names that clash with none of its own."""

    opset: int
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401 - as in onnx
        """Adds a node with one output, whose name it gives."""
        name = f"headrace/{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def const(self, value: object, dtype: type[np.generic]) -> str:
        """Adds a constant, whose name it gives."""
        name = f"headrace/constant_{len(self.constants)}"
        array = np.array(value, dtype=dtype, order="C")
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def over(self, kind: str, x: str, axis: int, *, keepdims: int = 0) -> str:
        """Reduces or unsqueezes along an axis; that moved from attribute to input over time."""
        keep = {} if kind == "Unsqueeze" else {"keepdims": keepdims}
        if self.opset >= (18 if kind == "ReduceMax" else 13):
            return self.op(kind, x, self.const([axis], np.int64), **keep)
        return self.op(kind, x, axes=[axis], **keep)

    def normalize(self, x: str) -> str:
        """Scales rows to unit length; a row of zeros stays one."""
        squares = self.over("ReduceSum", self.op("Mul", x, x), 1, keepdims=1)
        length = self.op("Sqrt", squares)
        return self.op("Div", x, self.op("Max", length, self.const(1e-12, np.float32)))


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operator set that a graph uses."""
    return next(
        int(entry.version) for entry in model.opset_import if entry.domain in {"", "ai.onnx"}
    )


def finish(
    model: onnx.ModelProto, pooling: Sequence[str], heads: Sequence[Dense | Normalize]
) -> onnx.ModelProto:
    """Appends pooling, dense layers and normalisation to a transformer's graph, in place.

    Args:
        model: gives token states [rows, tokens, width]; may also want `token_type_ids`, which
            become zeros inside the graph.
        pooling: one or more of `POOLINGS`; several are concatenated.
        heads: layers after pooling, in order.

    Returns:
        The same model, with inputs `input_ids` and `attention_mask` and output `embeddings`.

    Raises:
        ModelError: an input, a pooling or an operator set that isn't known.
    """
    tail = _Tail(opset_of(model))
    graph = model.graph
    _settle_inputs(graph)
    states = tail.op("Cast", _states_of(graph), to=TensorProto.FLOAT)
    parts = [_pool(tail, way, states) for way in pooling]
    vector = parts[0] if len(parts) == 1 else tail.op("Concat", *parts, axis=1)
    for head in heads:
        vector = (
            tail.normalize(vector) if isinstance(head, Normalize) else _dense(tail, head, vector)
        )
    tail.nodes.append(helper.make_node("Identity", [tail.normalize(vector)], [_OUTPUT]))
    graph.node.extend(tail.nodes)
    graph.initializer.extend(tail.constants)
    del graph.output[:]
    graph.output.append(
        helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, ["rows", "dimension"])
    )
    _forget_origin(model)
    return model


def look_up(vectors: NDArray[np.float32], otherwise: NDArray[np.float32]) -> onnx.ModelProto:
    """A graph that adds up a vector for each token, and normalises.

    Weights are in the vectors, and a mean differs from the sum by its length only.

    Args:
        vectors: float32 [vocabulary, dimension]; a token that says nothing has zeros.
        otherwise: float32 [dimension], the unit vector of a text of such tokens only.
    """
    size, dimension = vectors.shape
    tail = _Tail(_OPSET)
    # Padding looks up a row of zeros of its own: less to do than to mask what was looked up.
    table = tail.const(np.concatenate([vectors, np.zeros((1, dimension))]), np.float32)
    kept = tail.op("Cast", "attention_mask", to=TensorProto.BOOL)
    ids = tail.op("Where", kept, "input_ids", tail.const(size, np.int64))
    total = tail.over("ReduceSum", tail.op("Gather", table, ids), 1)
    # Too little to tell beside any vector, and a direction where there is none.
    least = np.float32(1e-9) * otherwise
    vector = tail.normalize(tail.op("Add", total, tail.const(least, np.float32)))
    tail.nodes.append(helper.make_node("Identity", [vector], [_OUTPUT]))
    graph = helper.make_graph(
        tail.nodes,
        _OUTPUT,
        [_input(name) for name in _INPUTS],
        [helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, ["rows", "dimension"])],
        tail.constants,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR
    )
    _forget_origin(model)
    return model


def _input(name: str) -> Any:  # noqa: ANN401 - onnx has no types
    return helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "tokens"])


def _settle_inputs(graph: Any) -> None:  # noqa: ANN401 - onnx has no types
    """Leaves the two inputs; zeros take the place of token types."""
    constants = {constant.name for constant in graph.initializer}
    names = [entry.name for entry in graph.input if entry.name not in constants]
    unknown = set(names) - {*_INPUTS, "token_type_ids"}
    if unknown or not set(_INPUTS) <= set(names):
        raise ModelError(
            f"model graph: inputs {', '.join(sorted(names))} — must be input_ids, attention_mask "
            "and at most token_type_ids"
        )
    if "token_type_ids" in names:
        zero = numpy_helper.from_array(np.zeros(1, np.int64), "headrace/zero")
        graph.initializer.append(zero)
        node = helper.make_node("Mul", ["input_ids", zero.name], ["token_type_ids"])
        graph.node.insert(0, node)
    del graph.input[:]
    graph.input.extend(_input(name) for name in _INPUTS)


def _states_of(graph: Any) -> str:  # noqa: ANN401 - onnx has no types
    """The output that holds the token states: by name, else the first of rank 3."""
    ranks = {
        entry.name: len(entry.type.tensor_type.shape.dim)
        for entry in graph.output
        if entry.type.tensor_type.elem_type in _FLOATS
    }
    for name in (*_STATES, *(name for name, rank in ranks.items() if rank == 3)):
        if name in ranks:
            return cast("str", name)
    raise ModelError(f"model graph: outputs {', '.join(ranks)} — none holds token states")


def _pool(tail: _Tail, way: str, states: str) -> str:
    """[rows, tokens, width] to [rows, width], by the tokens that the mask keeps."""
    if way == "cls":
        return tail.op("Gather", states, tail.const(0, np.int64), axis=1)
    if way == "lasttoken":
        return _last_token(tail, states)
    if way == "max":
        kept = tail.over("Unsqueeze", tail.op("Cast", "attention_mask", to=TensorProto.BOOL), 2)
        low = tail.const(-1e9, np.float32)
        return tail.over("ReduceMax", tail.op("Where", kept, states, low), 1)
    if way in {"mean", "mean_sqrt_len"}:
        kept = tail.over("Unsqueeze", tail.op("Cast", "attention_mask", to=TensorProto.FLOAT), 2)
        total = tail.over("ReduceSum", tail.op("Mul", states, kept), 1)
        # Never zero: a mask without any token must not make NaN.
        count = tail.op("Max", tail.over("ReduceSum", kept, 1), tail.const(1e-9, np.float32))
        return tail.op("Div", total, count if way == "mean" else tail.op("Sqrt", count))
    raise ModelError(f"model pooling: {way} — not supported; known are {', '.join(POOLINGS)}")


def _last_token(tail: _Tail, states: str) -> str:
    """The state of each row's last token; rows are padded on the right."""
    if tail.opset < 12:
        raise ModelError(f"model graph: opset {tail.opset} — lasttoken pooling needs 12 or later")
    count = tail.over("ReduceSum", "attention_mask", 1, keepdims=1)
    last = tail.op("Sub", count, tail.const([[1]], np.int64))
    return tail.op("GatherND", states, last, batch_dims=1)


def _dense(tail: _Tail, head: Dense, x: str) -> str:
    """One dense layer with its activation."""
    y = tail.op("MatMul", x, tail.const(head.weight.T, np.float32))
    if head.bias is not None:
        y = tail.op("Add", y, tail.const(head.bias, np.float32))
    if head.activation == "Identity":
        return y
    if head.activation == "GELU":
        scaled = tail.op("Mul", y, tail.const(2**-0.5, np.float32))
        gate = tail.op("Add", tail.op("Erf", scaled), tail.const(1, np.float32))
        return tail.op("Mul", tail.op("Mul", y, gate), tail.const(0.5, np.float32))
    if head.activation in ACTIVATIONS:
        return tail.op({"ReLU": "Relu"}.get(head.activation, head.activation), y)
    raise ModelError(
        f"model dense layer: {head.activation} — not supported; known are {', '.join(ACTIVATIONS)}"
    )


def _forget_origin(model: onnx.ModelProto) -> None:
    """Drops what depends on where and when the graph was made, shapes that are stale included.

    So the same weights make the same file, and with it the same fingerprint.
    """
    model.producer_name, model.producer_version, model.doc_string = "headrace", "", ""
    del model.metadata_props[:]
    graph: Any = model.graph
    graph.name, graph.doc_string = "embeddings", ""
    del graph.value_info[:]
    for part in (graph, *graph.node, *graph.initializer, *model.functions):
        part.doc_string = ""
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
