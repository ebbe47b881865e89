"""Matrix products in int8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from operators.model import ModelError
from operators.model.onnx import OnnxRuntime
from operators.model.quantize import Activations, fit, groups_of, rewrite

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH = 32
DICE = np.random.default_rng(3)
WEIGHTS = {
    name: DICE.normal(size=(WIDTH, columns)).astype(np.float32)
    for name, columns in (("left", 24), ("right", 24), ("last", 16))
}
BIAS = DICE.normal(size=16).astype(np.float32)


def states(rows: int, tokens: int, seed: int) -> NDArray[np.float32]:
    """Token states, of which one channel reaches a hundred times as far as the rest."""
    found = np.random.default_rng(seed).normal(size=(rows, tokens, WIDTH)).astype(np.float32)
    found[..., 5] = 60 + 10 * found[..., 5]
    return found


def graph(opset: int = 17, *, shared: bool = False) -> Any:
    """Two products of the same states, added up, and one with a bias behind them."""
    nodes = [
        helper.make_node("MatMul", ["states", "left"], ["a"]),
        helper.make_node("MatMul", ["states", "left" if shared else "right"], ["b"]),
        helper.make_node("Mul", ["a", "b"], ["c"]),
        helper.make_node("Concat", ["c", "states"], ["d"], axis=2),
        helper.make_node("Slice", ["d", "from", "to", "axis"], ["e"]),
        helper.make_node("MatMul", ["e", "last"], ["f"]),
        helper.make_node("Add", ["f", "bias"], ["g"]),
        helper.make_node("MatMul", ["g", "tail"], ["embeddings"], name="headrace/MatMul_1"),
    ]
    constants: dict[str, NDArray[Any]] = {
        **WEIGHTS,
        "bias": BIAS,
        "tail": np.eye(16, dtype=np.float32),
        "from": np.array([0], np.int64),
        "to": np.array([WIDTH], np.int64),
        "axis": np.array([2], np.int64),
    }
    made = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("states", TensorProto.FLOAT, ["r", "t", WIDTH])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["r", "t", 16])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model: Any, x: NDArray[np.float32], output: str = "embeddings") -> NDArray[np.float32]:
    """A graph's output for some states."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    if output != "embeddings":
        probed.graph.output.append(helper.make_empty_tensor_value_info(output))
    session: Any = OnnxRuntime(probed.SerializeToString())._session
    found: NDArray[np.float32] = session.run([output], {"states": x})[0]
    return found


def quantized(model: Any) -> Any:
    """All of a graph in int8, fitted to states of another seed than those that come."""
    x = states(16, 40, seed=1)
    fitted = []
    for group in groups_of(model):
        seen = x if group.source == "states" else run(model, x, group.source)
        flat = seen.reshape(-1, WIDTH)
        weights = [WEIGHTS[name] for name in group.weights]
        fitted.append(fit(group, weights, Activations(flat.min(0), flat.max(0), flat)))
    return rewrite(model, fitted)


def test_products_of_the_same_activations_are_one_group() -> None:
    """Groups follow the activations; what Headrace put behind the transformer is left alone."""
    groups = groups_of(graph())
    assert [(group.source, group.weights) for group in groups] == [
        ("states", ("left", "right")),
        ("e", ("last",)),
    ]
    assert [group.size for group in groups] == [2 * WIDTH * 24, WIDTH * 16]


def test_int8_is_near_to_its_floats() -> None:
    """An outlier channel takes nothing from the others, and biases hold, new or there before."""
    model, x = graph(), states(4, 11, seed=2)
    made = quantized(model)
    onnx.checker.check_model(made)
    kinds = [constant.data_type for constant in made.graph.initializer if len(constant.dims) == 2]
    assert kinds.count(TensorProto.INT8) == len(WEIGHTS)
    assert kinds.count(TensorProto.FLOAT) == 1
    truth, found = run(model, x), run(made, x)
    assert np.square(found - truth).mean() < 1e-3 * truth.var()
    assert len([node for node in made.graph.node if node.op_type == "Add"]) == 3


def test_rows_owe_nothing_to_their_batch() -> None:
    """A row alone gives what it gives among others, as all scales are fixed."""
    made, x = quantized(graph()), states(6, 9, seed=4)
    x[3:] *= 50
    together = run(made, x)
    for row in range(len(x)):
        assert np.allclose(run(made, x[row : row + 1]), together[row : row + 1], rtol=1e-4)


def test_graph_given_stays_as_it_is() -> None:
    """Rewriting gives a copy; with no groups it is the same graph."""
    model = graph()
    before = model.SerializeToString(deterministic=True)
    quantized(model)
    assert model.SerializeToString(deterministic=True) == before
    assert rewrite(model, []).SerializeToString(deterministic=True) == before


def test_weights_that_several_products_share_are_left() -> None:
    """Weights with two uses stay in floats, as one product's scales don't fit the other."""
    assert [group.weights for group in groups_of(graph(shared=True))] == [("last",)]


def test_graphs_without_a_way_are_refused() -> None:
    """Old operator sets and graphs without products are named."""
    with pytest.raises(ModelError, match="opset 12 — int8 needs 13"):
        groups_of(graph(12))
    bare = graph()
    del bare.graph.node[:]
    with pytest.raises(ModelError, match="no matrix products"):
        groups_of(bare)
