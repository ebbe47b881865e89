"""Static bundles: made of a model, and run as any other."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace.errors import UsageError
from operators.batching import CostModel
from operators.model import (
    Bundle,
    Encoder,
    ModelError,
    ModelSource,
    choose,
    load_encoder,
    open_bundle,
    open_runtime,
    static,
)
from operators.model.distill import Plan, distill
from operators.model.manifest import (
    GRAPH_FILE,
    MANIFEST_FILE,
    TOKENIZER_FILE,
    FileRecord,
    Manifest,
    meaning,
)
from operators.model.sample import TEXTS
from tests.operators.model import tiny
from tests.operators.model.test_encoder import Recorder

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FP32: Any = {"runtime": "onnxruntime", "precision": "fp32"}
KEPT = 8000
"""Of the real vocabulary: the tokens of frequent words, so that a test takes seconds."""


def letters(count: int) -> list[str]:
    """Different texts of single letters."""
    dice = random.Random(4)  # noqa: S311 - no secret
    return list(
        {" ".join(dice.choices("abcdefghij", k=dice.randint(2, 8))): None for _ in range(count)}
    )


@pytest.fixture
def teacher(tmp_path: Path) -> ModelSource:
    """A tiny model, whose vectors are means of its tokens'."""
    return ModelSource(str(tiny.model_folder(tmp_path / "teacher")), tmp_path / "cache")


@pytest.fixture(scope="module")
def sliced(minilm: Bundle, tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """The real model, with the first part of its vocabulary."""
    folder = tmp_path_factory.mktemp("sliced")
    (folder / GRAPH_FILE).hardlink_to(minilm.onnx_file)
    raw = json.loads(minilm.tokenizer_file.read_bytes())
    vocabulary = raw["model"]["vocab"]
    raw["model"]["vocab"] = {word: own for word, own in vocabulary.items() if own < KEPT}
    (folder / TOKENIZER_FILE).write_text(json.dumps(raw))
    described = json.loads((minilm.path / MANIFEST_FILE).read_bytes())
    files = {name: FileRecord.of(folder / name) for name in (GRAPH_FILE, TOKENIZER_FILE)}
    told = {name: described[name] for name in ("dimension", "max_tokens", "pooling", "prompts")}
    described.update(files=files, dense=(), fingerprint=meaning(files, **told))
    Manifest(**described).write(folder)
    return ModelSource(str(folder), minilm.measurements)


@pytest.fixture(scope="module")
def made(sliced: ModelSource, tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """A static bundle of that, from tokens alone."""
    out = tmp_path_factory.mktemp("static") / "bundle"
    distill(sliced, out, Plan(dimension=128), **FP32)
    return ModelSource(str(out), sliced.cache)


@pytest.fixture(scope="module")
def encoder(made: ModelSource) -> Encoder:
    """Its encoder."""
    return load_encoder(made, **FP32)


def first(encoder: Encoder, texts: list[str]) -> NDArray[np.float32]:
    """Each text's first vector."""
    return np.stack([text.vectors[0] for text in encoder.encode(texts)])


def test_manifest_names_the_teacher(made: ModelSource, sliced: ModelSource) -> None:
    """A static bundle says what it is of, and has a fingerprint of its own."""
    own, teacher = open_bundle(made), open_bundle(sliced)
    assert own.manifest.source == f"distilled from {teacher.name} ({teacher.fingerprint})"
    assert own.name == f"{teacher.name}-static-128"
    assert own.fingerprint != teacher.fingerprint
    assert (own.dimension, own.max_tokens, own.manifest.pooling) == (128, 2048, "static")


def test_neighbours_are_the_teachers(encoder: Encoder, sliced: ModelSource) -> None:
    """From tokens alone, far more of the teacher's neighbours are found than by chance."""
    texts = [text for text in TEXTS if len(text.split()) > 3]
    truth = first(load_encoder(sliced, **FP32), texts)
    assert static.neighbours_shared(first(encoder, texts), truth) > 0.4


def test_any_text_has_a_unit_vector(encoder: Encoder) -> None:
    """Nothing, unknown words, special tokens and long texts have finite vectors of length 1."""
    texts = ["", "\u4f60\u597d\u2603", "[CLS] [UNK]", "the ship " * 5000, "x", "\ud800"]
    vectors = first(encoder, texts)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    # What says nothing says the same.
    np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-6)


def test_no_special_tokens_and_no_short_limit(encoder: Encoder) -> None:
    """A text has the tokens of its words, and isn't cut where the teacher cuts it."""
    short, long, longer = encoder.encode(["ship", "ship " * 2048, "ship " * 2049])
    assert (short.tokens, long.tokens, longer.tokens) == (1, 2048, 2048)
    assert (short.truncated, long.truncated, longer.truncated) == (False, False, True)
    assert float(short.vectors[0] @ long.vectors[0]) == pytest.approx(1, abs=1e-5)


def test_a_vector_does_not_depend_on_the_batch(encoder: Encoder) -> None:
    """A text has the same vector alone and among longer ones, to the last bits."""
    alone = np.concatenate([first(encoder, [text]) for text in TEXTS])
    np.testing.assert_allclose(first(encoder, list(TEXTS)), alone, atol=1e-6)


@pytest.mark.parametrize(("token_s", "most"), [(1e-4, 512), (1e-7, 2048)])
def test_calls_are_larger_where_tokens_cost_nothing(
    made: ModelSource, token_s: float, most: int
) -> None:
    """Calls fill the limit that suits the cost of a token, unless another is set."""
    bundle = open_bundle(made)
    recorder = Recorder(open_runtime(bundle, ("onnxruntime", "fp32")))
    Encoder(bundle, recorder, CostModel(1.0, token_s)).encode(["the ship"] * 2048)
    assert {rows * tokens for rows, tokens in recorder.shapes} == {most}


def test_every_runtime_takes_it(made: ModelSource) -> None:
    """`auto` measures the bundle on each runtime that there is, and finds a sound one."""
    choice = choose(open_bundle(made))
    assert choice.cost.token > 0
    assert choice.figures["onnxruntime fp32"]["docs_per_cpu_second"] > 1000


def test_fit_comes_near_to_the_teacher(teacher: ModelSource, tmp_path: Path) -> None:
    """Fitted to texts, a bundle finds more of the teacher's neighbours on others, and says so."""
    plan = Plan(tiny.WIDTH, texts=letters(900))
    steps: list[tuple[str, int, int]] = []
    told = distill(teacher, tmp_path / "out", plan, **FP32, watch=lambda *own: steps.append(own))
    assert told.overlap is not None
    assert told.overlap_before is not None
    assert told.overlap > max(0.6, told.overlap_before)
    assert told.texts == len(plan.texts)
    assert told.vocabulary == len(tiny.WORDS)
    ends = {step: (done, total) for step, done, total in steps}
    assert ends.keys() == {"tokens", "texts", "fit"}
    assert all(done == total for done, total in ends.values())


def test_the_same_again_is_the_same_bundle(teacher: ModelSource, tmp_path: Path) -> None:
    """The same teacher, texts and sizes make the same bundle; other texts another."""
    prints = [
        distill(teacher, tmp_path / name, Plan(4, texts=texts), **FP32).manifest.fingerprint
        for name, texts in (("a", letters(600)), ("b", letters(600)), ("c", letters(700)))
    ]
    assert prints[0] == prints[1] != prints[2]


def test_the_prompt_is_the_teachers_affair(tmp_path: Path) -> None:
    """A model that wants prompts gives a bundle that needs none."""
    prompts = {"query": "query : ", "document": "search : "}
    folder = tiny.model_folder(tmp_path / "prompted", prompts=prompts)
    source = ModelSource(str(folder), tmp_path / "cache")
    distill(source, tmp_path / "out", Plan(tiny.WIDTH), **FP32)
    own = load_encoder(ModelSource(str(tmp_path / "out"), tmp_path / "cache"), **FP32)
    np.testing.assert_array_equal(own.encode_query("a b"), first(own, ["a b"])[0])


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (Plan(dimension=9), "--dimension: 9 — must be from 1 to 8"),
        (Plan(8, max_tokens=0), "--max-tokens: 0 — must be from 1 to 65536"),
        (Plan(8, texts=["a b", "a b", "", "z"]), "--texts: 2 different texts — at least 500"),
    ],
)
def test_a_plan_that_cant_be_met(
    teacher: ModelSource, tmp_path: Path, plan: Plan, text: str
) -> None:
    """What doesn't do is refused by its name and value, and nothing is left behind."""
    with pytest.raises(UsageError, match=text):
        distill(teacher, tmp_path / "out", plan, **FP32)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_kept(teacher: ModelSource, tmp_path: Path) -> None:
    """A folder with something in it is not written over, an empty one is taken."""
    out = tmp_path / "out"
    out.mkdir()
    distill(teacher, out, Plan(8), **FP32)
    with pytest.raises(UsageError, match="is there already"):
        distill(teacher, out, Plan(8), **FP32)
    with pytest.raises(ModelError, match="is static already"):
        distill(ModelSource(str(out), tmp_path / "cache"), tmp_path / "again", Plan(4), **FP32)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="can't be written"):
        distill(teacher, tmp_path / "file" / "out", Plan(8), **FP32)
