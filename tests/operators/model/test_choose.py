"""Which runtime serves a model best."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from operators.model import Bundle, ModelError, ModelSource, choose, describe, open_bundle, runtime
from operators.model.sample import NEAR, TEXTS
from tests.operators.model import tiny

if TYPE_CHECKING:
    from pathlib import Path

module = importlib.import_module("operators.model.choose")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A tiny model, with a cache of its own."""
    return open_bundle(ModelSource(str(tiny.model_folder(tmp_path / "m")), tmp_path / "cache"))


def test_sample_is_fixed_and_varied() -> None:
    """The sample has enough texts of many lengths, none twice, and is the same at each import."""
    assert len(set(TEXTS)) == len(TEXTS) >= 100
    sizes = [len(text.split()) for text in TEXTS]
    assert min(sizes) <= 3
    assert max(sizes) >= 60
    assert len(set(NEAR)) >= 500
    again = importlib.reload(importlib.import_module("operators.model.sample"))
    assert (again.TEXTS, again.NEAR) == (TEXTS, NEAR)


def test_choice_is_measured_once(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second choice on the same machine reads what the first one found."""
    first = choose(bundle)
    monkeypatch.setattr(module, "_measure", lambda *_: pytest.fail("measured again"))
    assert choose(bundle) == first
    assert choose(bundle).cost.token > 0


def test_other_machine_or_settings_measure_anew(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another processor, other versions or other settings don't read that choice."""
    choose(bundle, "onnxruntime", "fp32")
    monkeypatch.setattr(module, "_processor", lambda: "another")
    choose(bundle, "onnxruntime", "fp32")
    monkeypatch.setattr(module, "versions", lambda: {"onnxruntime": "0"})
    choose(bundle, "onnxruntime", "fp32")
    assert len(list(bundle.measurements.glob("choice-*.json"))) == 3


def test_damaged_choice_is_measured_again(bundle: Bundle) -> None:
    """A cached choice that can't be read is replaced."""
    choose(bundle, "onnxruntime", "fp32")
    (path,) = bundle.measurements.glob("choice-*.json")
    path.write_text("{")
    assert choose(bundle, "onnxruntime", "fp32").runtime == "onnxruntime"
    assert json.loads(path.read_bytes())["precision"] == "fp32"


def test_cache_that_is_only_read_still_serves(bundle: Bundle, tmp_path: Path) -> None:
    """Where measurements can't be kept, the choice is made all the same."""
    (tmp_path / "file").touch()
    fixed = replace(bundle, measurements=tmp_path / "file")
    assert choose(fixed, "onnxruntime", "fp32").precision == "fp32"


def test_fastest_sound_candidate_wins() -> None:
    """The fastest loses where it disagrees with fp32, depends on the batch, or gains nothing."""
    sound = {"overlap_at_10": 0.99, "alone_cosine": 1.0}
    base = {"docs_per_cpu_second": 100.0, "overlap_at_10": 1.0, "alone_cosine": 1.0}

    def winner(**figures: float) -> str:
        other = {**sound, "docs_per_cpu_second": 180.0, **figures}
        reference = ("onnxruntime", "fp32")
        measured = {reference: base, ("openvino", "bf16"): other}
        best, _ = module._best(measured, 0.98)
        told[best] = module._refused(measured, best, 0.98)
        return best[1]  # type: ignore[no-any-return]

    told: dict[tuple[str, str], dict[str, str]] = {}
    assert winner() == "bf16"
    assert winner(overlap_at_10=0.97) == "fp32"
    assert told["onnxruntime", "fp32"] == {
        "openvino bf16": "overlap_at_10 0.9700 is below model.least_agreement 0.98; "
        "1.80 times as fast as onnxruntime fp32"
    }
    assert winner(alone_cosine=0.999) == "fp32"
    assert "depends on its batch" in told["onnxruntime", "fp32"]["openvino bf16"]
    assert winner(docs_per_cpu_second=103.0) == "fp32"
    assert told["onnxruntime", "fp32"] == {}


def test_cost_is_fitted() -> None:
    """The fit finds the two costs that made noisy times, and never goes below zero."""
    shapes = [(1, 8), (1, 64), (4, 16), (16, 16), (8, 64)]
    dice = np.random.default_rng(0)
    seconds = [
        (0.002 + 0.0001 * rows * longest) * dice.uniform(0.97, 1.03) for rows, longest in shapes
    ]
    cost = module.fit_cost(shapes, seconds)
    assert cost.call == pytest.approx(0.002, rel=0.1)
    assert cost.token == pytest.approx(0.0001, rel=0.1)
    steep = module.fit_cost(shapes, [(rows * longest) ** 2 for rows, longest in shapes])
    assert steep.call == 0
    assert steep.token > 0


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (("cuda", "auto"), "model.runtime: cuda — must be one of"),
        (("auto", "fp8"), "model.precision: fp8 — must be one of"),
        (("auto", "int8"), "model.precision: int8 — this bundle has no int8 graph; make it"),
        (("onnxruntime", "bf16"), "set model.runtime to openvino"),
    ],
)
def test_what_isnt_there_is_refused(bundle: Bundle, asked: tuple[str, str], text: str) -> None:
    """A setting that can't be met is refused by its name and value, with the way out."""
    with pytest.raises(ModelError, match=text):
        choose(bundle, *asked)


def test_without_openvino(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where OpenVINO isn't installed `auto` takes ONNX Runtime, and asking for it tells how."""
    monkeypatch.setattr(runtime, "_vino", lambda: None)
    assert runtime.candidates("auto", "auto") == [("onnxruntime", "fp32")]
    for asked in (("openvino", "auto"), ("auto", "bf16")):
        with pytest.raises(ModelError, match=r"pip install 'headrace\[openvino\]'"):
            choose(bundle, *asked)


def test_without_bf16(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor without bf16 only fp32 is tried, and asking for bf16 is refused."""
    vino = pytest.importorskip("operators.model.vino")
    monkeypatch.setattr(vino, "has_bf16", lambda: False)
    assert ("openvino", "bf16") not in runtime.candidates("auto", "auto")
    with pytest.raises(ModelError, match=r"model\.precision: bf16 — this processor has no bf16"):
        choose(bundle, "auto", "bf16")


def test_real_model_gets_a_sound_choice(source: ModelSource, minilm: Bundle) -> None:
    """`auto` on the real model agrees with fp32, doesn't depend on the batch, and is described."""
    shown = describe(source)
    figures = shown["figures"][f"{shown['runtime']} {shown['precision']}"]
    if "overlap_at_10" in figures:
        assert figures["overlap_at_10"] >= 0.99
        assert figures["alone_cosine"] >= 0.9999
    assert figures["docs_per_cpu_second"] > 0
    assert shown["fingerprint"] == minilm.fingerprint
    wanted = {"path", "onnx_file", "tokenizer_file", "dimension", "max_tokens", "runtime"}
    wanted |= {"precision", "fingerprint", "name", "pooling", "opset", "reason", "figures"}
    assert wanted <= set(json.loads(json.dumps(shown)))
