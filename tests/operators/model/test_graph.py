"""What is appended to a transformer's graph, held against NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from operators.model.errors import ModelError
from operators.model.graph import Dense, Normalize, finish, look_up
from operators.model.onnx import OnnxRuntime
from tests.operators.model import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

IDS = np.array([[2, 5, 6, 7, 3], [2, 9, 3, 0, 0], [2, 3, 0, 0, 0]], dtype=np.int64)
MASK = (IDS > 0).astype(np.int64)


def run(folder: Path, model: Any, mask: NDArray[np.int64] = MASK) -> NDArray[np.float32]:
    """Saves a graph, and runs it on the batch above."""
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / "model.onnx"))
    return OnnxRuntime(folder / "model.onnx").run(IDS, mask)


def unit(x: NDArray[Any]) -> NDArray[Any]:
    """Rows scaled to unit length."""
    scaled: NDArray[Any] = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    return scaled


def pooled(way: str) -> NDArray[np.float32]:
    """The batch above pooled by hand, row by row."""
    by_way: dict[str, Callable[[Any], Any]] = {
        "mean": lambda rows: rows.mean(axis=0),
        "mean_sqrt_len": lambda rows: rows.sum(axis=0) / len(rows) ** 0.5,
        "max": lambda rows: rows.max(axis=0),
        "cls": lambda rows: rows[0],
        "lasttoken": lambda rows: rows[-1],
    }
    states = tiny.table()[IDS]
    return np.stack([by_way[way](own[: m.sum()]) for own, m in zip(states, MASK, strict=True)])


@pytest.mark.parametrize("opset", [11, 14, 18])
@pytest.mark.parametrize("way", ["mean", "mean_sqrt_len", "max", "cls", "lasttoken"])
def test_pooling_ignores_padding(tmp_path: Path, way: str, opset: int) -> None:
    """Each way of pooling gives what NumPy does on the unpadded rows, in old and new opsets."""
    if way == "lasttoken" and opset < 12:
        with pytest.raises(ModelError, match="opset 11"):
            finish(tiny.transformer(opset), [way], [])
        return
    found = run(tmp_path, finish(tiny.transformer(opset), [way], []))
    np.testing.assert_allclose(found, unit(pooled(way)), atol=1e-6)


def test_several_poolings_are_concatenated(tmp_path: Path) -> None:
    """Two ways of pooling give one vector of twice the width, in the order given."""
    found = run(tmp_path, finish(tiny.transformer(), ["cls", "mean"], []))
    expected = unit(np.concatenate([pooled("cls"), pooled("mean")], axis=1))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("activation", "by_hand"),
    [
        ("Identity", lambda x: x),
        ("Tanh", np.tanh),
        ("ReLU", lambda x: np.maximum(x, 0)),
        ("Sigmoid", lambda x: 1 / (1 + np.exp(-x))),
    ],
)
def test_dense_layer(
    tmp_path: Path, activation: str, by_hand: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    """A dense layer after normalisation gives what NumPy does."""
    dice = np.random.default_rng(1)
    weight = dice.normal(size=(5, tiny.WIDTH)).astype(np.float32)
    bias = dice.normal(size=5).astype(np.float32)
    heads: list[Dense | Normalize] = [Normalize(), Dense(weight, bias, activation)]
    found = run(tmp_path, finish(tiny.transformer(), ["mean"], heads))
    expected = unit(by_hand(unit(pooled("mean")) @ weight.T + bias))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_token_types_become_zeros(tmp_path: Path) -> None:
    """A graph that wants token types gets zeros, and has two inputs left."""
    model = tiny.transformer(inputs=("input_ids", "attention_mask", "token_type_ids"))
    found = run(tmp_path, finish(model, ["cls"], []))
    assert [entry.name for entry in model.graph.input] == ["input_ids", "attention_mask"]
    expected = unit(tiny.table()[IDS][:, 0] + tiny.table()[0])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_empty_mask_makes_no_nan(tmp_path: Path) -> None:
    """A row without any token gives zeros rather than NaN."""
    found = run(tmp_path, finish(tiny.transformer(), ["mean"], []), np.zeros_like(MASK))
    assert not found.any()


def test_unknown_input_is_refused() -> None:
    """A graph with an input that can't be fed is refused by its name."""
    model = tiny.transformer(inputs=("input_ids", "attention_mask", "pixel_values"))
    with pytest.raises(ModelError, match="pixel_values"):
        finish(model, ["mean"], [])


def test_unknown_pooling_and_activation_are_refused() -> None:
    """What can't be built is refused by its name, with what is known."""
    with pytest.raises(ModelError, match="weightedmean — not supported; known are"):
        finish(tiny.transformer(), ["weightedmean"], [])
    head = Dense(np.ones((2, tiny.WIDTH), np.float32), None, "Softmax")
    with pytest.raises(ModelError, match="Softmax — not supported; known are"):
        finish(tiny.transformer(), ["mean"], [head])


def test_same_weights_make_the_same_bytes() -> None:
    """A graph's producer and comments leave no trace, so the fingerprint doesn't depend on them."""
    one, two = tiny.transformer(), tiny.transformer()
    two.producer_version, two.graph.name, two.graph.node[0].doc_string = "9", "other", "at line 5"
    first = finish(one, ["mean"], []).SerializeToString(deterministic=True)
    assert first == finish(two, ["mean"], []).SerializeToString(deterministic=True)


def test_looked_up_vectors_are_added_and_normalised(tmp_path: Path) -> None:
    """Each row is the sum of its own tokens' vectors at length 1, whatever the padding's vector."""
    table = tiny.table()
    otherwise = unit(np.ones(tiny.WIDTH, dtype=np.float32))
    found = run(tmp_path, look_up(table, otherwise))
    wanted = np.stack(
        [table[ids[mask > 0]].sum(axis=0) for ids, mask in zip(IDS, MASK, strict=True)]
    )
    np.testing.assert_allclose(found, unit(wanted), atol=1e-6)


def test_a_row_of_nothing_gets_the_vector_for_that(tmp_path: Path) -> None:
    """Where no token says anything, or there is none, the vector is finite and of length 1."""
    table = np.zeros_like(tiny.table())
    otherwise = unit(np.arange(tiny.WIDTH, dtype=np.float32))
    for mask in (MASK, np.zeros_like(MASK)):
        found = run(tmp_path, look_up(table, otherwise), mask)
        np.testing.assert_allclose(found, np.tile(otherwise, (3, 1)), atol=1e-6)


def test_same_vectors_same_graph() -> None:
    """The same vectors make the same bytes, so the same fingerprint."""
    graphs = [look_up(tiny.table(), tiny.table()[0]) for _ in range(2)]
    assert graphs[0].SerializeToString(deterministic=True) == graphs[1].SerializeToString(
        deterministic=True
    )
