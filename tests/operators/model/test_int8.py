"""The int8 form of a bundle: how it is made, what it is worth, and when it is taken."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from operators.model import (
    Bundle,
    Encoder,
    ModelError,
    ModelSource,
    choose,
    describe,
    load_encoder,
    make_int8,
    open_bundle,
)
from tests.operators.model import tiny
from tests.operators.model.conftest import ROOT
from tests.operators.model.test_bundle import damage

if TYPE_CHECKING:
    from pathlib import Path

HANG = """
import sys
from pathlib import Path
from operators.model import ModelSource, calibrate, make_int8, open_bundle
def hang(*args):
    print("half", flush=True)
    import time
    time.sleep(60)
calibrate._describe = hang
make_int8(open_bundle(ModelSource(sys.argv[1], Path(sys.argv[2]))))
"""
REAL = [
    "Return the canonical path of the specified filename, eliminating any symbolic links.",
    "A flight from Lisbon to Oslo was cancelled because of fog.",
    "How do I undo the last commit without losing my changes?",
    "The recipe needs 250 g of flour, 3 eggs and a pinch of salt.",
    "Utility to convert man pages into HTML (command-line tool)",
    "Quarterly revenue rose 12% to $4.3bn, beating analysts' estimates.",
    "naïve café owners in São Paulo aren't amused",
    "ERROR 2024-05-01T12:00:03Z worker[17] connection reset by peer",
    "She had never seen the sea, and now it lay before her, grey and endless.",
    "yes",
]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A tiny model with one matrix product."""
    model = tiny.model_folder(tmp_path / "m", product=True)
    return open_bundle(ModelSource(str(model), tmp_path / "cache"))


def words(seed: int = 0) -> list[str]:
    """Texts that the tiny model knows."""
    dice = np.random.default_rng(seed)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    return [" ".join(dice.choice(letters, size=dice.integers(1, 30))) for _ in range(120)]


def test_same_texts_make_the_same_graph(tmp_path: Path) -> None:
    """Two bundles of a model, calibrated on the same texts, have the same int8 fingerprint."""
    model = tiny.model_folder(tmp_path / "m", product=True)
    made = [
        make_int8(open_bundle(ModelSource(str(model), tmp_path / cache)), words())
        for cache in ("one", "two")
    ]
    assert made[0].fingerprint == made[1].fingerprint
    assert made[0].onnx_file.read_bytes() == made[1].onnx_file.read_bytes()


def test_int8_has_a_fingerprint_of_its_own(bundle: Bundle) -> None:
    """Vectors in int8 are never taken for those in floats, at any length."""
    made = make_int8(bundle, words())
    source = ModelSource(bundle.name, bundle.measurements, max_tokens=16)
    shorter = open_bundle(source)
    prints = {bundle.fingerprint, made.fingerprint}
    prints |= {shorter.fingerprint, shorter.int8().fingerprint}
    assert len(prints) == 4
    assert bundle.at("bf16").fingerprint == bundle.fingerprint
    encoder = load_encoder(source, runtime="onnxruntime", precision="int8")
    assert encoder.fingerprint == shorter.int8().fingerprint


def test_it_is_made_once(bundle: Bundle) -> None:
    """A second call finds what is there; other texts are refused, as tables may depend on it."""
    made = make_int8(bundle, words())
    stamp = made.onnx_file.stat().st_mtime_ns
    assert make_int8(bundle, words()) == make_int8(bundle) == made
    assert made.onnx_file.stat().st_mtime_ns == stamp
    with pytest.raises(ModelError, match="was made of other texts, and tables may depend on it"):
        make_int8(bundle, words(1))


def test_killed_maker_leaves_nothing(tmp_path: Path) -> None:
    """After kill -9 half-way there is no int8 form, and the next maker sweeps and succeeds."""
    model = tiny.model_folder(tmp_path / "m", product=True)
    arguments = [sys.executable, "-c", HANG, str(model), str(tmp_path / "cache")]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.kill()
    bundle = open_bundle(ModelSource(str(model), tmp_path / "cache"))
    assert not bundle.has_int8
    make_int8(bundle, words())
    assert [path.name for path in bundle.path.iterdir() if path.is_dir()] == ["int8"]


def test_what_isnt_whole_is_refused(bundle: Bundle) -> None:
    """A missing, damaged or foreign int8 form is named, with the command that makes one."""
    with pytest.raises(ModelError, match="has no int8 graph; make it: headrace model quantize"):
        choose(bundle, "auto", "int8")
    made = make_int8(bundle, words())
    with pytest.raises(ModelError, match="is the int8 form of a bundle; name the bundle's own"):
        open_bundle(ModelSource(str(made.path), bundle.measurements))
    manifest = made.path / "manifest.json"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole.replace(bundle.fingerprint.encode(), b"0" * 16))
    with pytest.raises(ModelError, match="is of another graph; delete the folder, then: headrace"):
        choose(bundle)
    manifest.write_bytes(whole)
    damage(made.onnx_file)
    with pytest.raises(ModelError, match="isn't the file that its manifest describes"):
        choose(bundle)


def test_it_outlives_a_damaged_bundle(bundle: Bundle) -> None:
    """A bundle that is built again keeps its int8 form, on which a table may depend."""
    made = make_int8(bundle, words())
    damage(bundle.onnx_file)
    again = open_bundle(ModelSource(bundle.name, bundle.measurements))
    assert again.int8() == made


def test_float_bundles_know_nothing_of_it(bundle: Bundle) -> None:
    """`auto` doesn't try int8 where no one made it."""
    assert not any("int8" in name for name in choose(bundle).figures)


def test_default_model_in_int8(quantized: Bundle, encoder: Encoder) -> None:
    """Most products are in int8, vectors of real texts are near, and owe nothing to the batch."""
    told = quantized.int8().manifest.quantized
    assert told is not None
    assert told["products"] >= 18
    assert told["products"] + len(told["kept"]) == 36
    source = ModelSource(str(quantized.path), quantized.measurements)
    own = load_encoder(source, runtime="onnxruntime", precision="int8")
    vectors = np.stack([one.vectors[0] for one in own.encode(REAL)])
    truth = np.stack([one.vectors[0] for one in encoder.encode(REAL)])
    alone = np.stack([own.encode([text])[0].vectors[0] for text in REAL])
    assert (vectors * truth).sum(axis=1).mean() > 0.998
    assert (vectors * truth).sum(axis=1).min() > 0.99
    assert (vectors * alone).sum(axis=1).min() > 0.9999


def test_auto_weighs_it_up(quantized: Bundle) -> None:
    """`auto` takes int8 if it agrees as the setting wants, and tells why not if it doesn't."""
    source = ModelSource(str(quantized.path), quantized.measurements)
    strict = describe(source, least_agreement=1.0)
    assert strict["precision"] == "fp32"
    names = [name for name in strict["figures"] if name.endswith("int8")]
    assert names
    figures = [strict["figures"][name] for name in names]
    assert all(one["overlap_at_10"] > 0.9 and one["fp32_cosine"] > 0.98 for one in figures)
    assert strict["int8_file"] == str(quantized.int8().onnx_file)
    speeds = {name: one["docs_per_cpu_second"] for name, one in strict["figures"].items()}
    if max(speeds, key=speeds.__getitem__) in names:
        assert any(
            "is below model.least_agreement 1.0" in why for why in strict["refused"].values()
        )
    asked = describe(source, precision="int8")
    assert asked["precision"] == "int8"
    assert asked["fingerprint"] == quantized.int8().fingerprint != strict["fingerprint"]
    assert asked["refused"] == {}
    assert json.loads(json.dumps(asked)) == asked
