"""Models small enough to be made within a test, in the hub's layout and without torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

WIDTH = 8
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz", "search", "query", ":"]


def table(seed: int = 0) -> NDArray[np.float32]:
    """The state of each token: float32 [words, WIDTH]."""
    states: NDArray[np.float32] = (
        np.random.default_rng(seed).normal(size=(len(WORDS), WIDTH)).astype(np.float32)
    )
    return states


def transformer(
    opset: int = 14,
    inputs: tuple[str, ...] = ("input_ids", "attention_mask"),
    seed: int = 0,
    *,
    product: bool = False,
) -> Any:
    """A graph that looks each token's state up; token types are added to it.

    With `product`, the states go through a matrix product with a bias.
    """
    states = [numpy_helper.from_array(table(seed), "table")]
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["looked_up"])]
    last = "looked_up"
    if "token_type_ids" in inputs:
        nodes.append(helper.make_node("Gather", ["table", "token_type_ids"], ["types"]))
        nodes.append(helper.make_node("Add", [last, "types"], ["added"]))
        last = "added"
    if product:
        weights = table(seed + 1)[:WIDTH]
        states.append(numpy_helper.from_array(weights, "weights"))
        states.append(numpy_helper.from_array(weights[0], "bias"))
        nodes.append(helper.make_node("MatMul", [last, "weights"], ["multiplied"]))
        nodes.append(helper.make_node("Add", ["multiplied", "bias"], ["biased"]))
        last = "biased"
    nodes.append(helper.make_node("Identity", [last], ["last_hidden_state"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "b"]) for name in inputs],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["b", "t", WIDTH])],
        states,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, producer_name="x"
    )


def tokenizer() -> Tokenizer:
    """Words of one letter, between `[CLS]` and `[SEP]`."""
    made = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]")  # noqa: S106
    )
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


def model_folder(
    folder: Path,
    *,
    pooling: str = "mean",
    prompts: dict[str, str] | None = None,
    seed: int = 0,
    product: bool = False,
) -> Path:
    """A whole model in the hub's layout."""
    (folder / "onnx").mkdir(parents=True)
    (folder / "1_Pooling").mkdir()
    onnx.save(transformer(seed=seed, product=product), str(folder / "onnx" / "model.onnx"))
    tokenizer().save(str(folder / "tokenizer.json"))
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    settings: dict[str, object] = {
        "modules.json": modules,
        "config.json": {"max_position_embeddings": 64, "pad_token_id": 0},
        "sentence_bert_config.json": {"max_seq_length": 32},
        "1_Pooling/config.json": {"pooling_mode": pooling, "embedding_dimension": WIDTH},
        "config_sentence_transformers.json": {"prompts": prompts or {}},
    }
    for name, content in settings.items():
        (folder / name).write_text(json.dumps(content))
    return folder
