"""Bundles: where they come from, and that only whole ones are ever opened."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from operators.model import ModelError, ModelSource, open_bundle, origins
from operators.model.manifest import MANIFEST_FILE
from operators.model.onnx import OnnxRuntime
from tests.operators.model import tiny
from tests.operators.model.conftest import MINILM, ROOT

if TYPE_CHECKING:
    from pathlib import Path

BUILD = """
import sys
from pathlib import Path
from operators.model import ModelSource, build, open_bundle
if len(sys.argv) > 3:
    def hang(*args):
        print("half", flush=True)
        import time
        time.sleep(60)
    build._describe = hang
print(open_bundle(ModelSource(sys.argv[1], Path(sys.argv[2]))).fingerprint)
"""


def builder(model: Path, cache: Path, *options: str) -> subprocess.Popen[str]:
    """A process of its own that opens a bundle."""
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(model), str(cache), *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def folders(cache: Path) -> list[Path]:
    """All folders in a cache, hidden ones too."""
    return [path for path in cache.iterdir() if path.is_dir()]


def test_two_builders_make_one_bundle(tmp_path: Path) -> None:
    """Two processes that build at once end with the same bundle, and only one."""
    model, cache = tiny.model_folder(tmp_path / "m"), tmp_path / "cache"
    both = [builder(model, cache) for _ in range(2)]
    printed = {process.communicate(timeout=60)[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(printed) == 1
    assert len(folders(cache)) == 1


def test_killed_builder_leaves_no_bundle(tmp_path: Path) -> None:
    """After kill -9 half-way nothing passes for a bundle; the next builder sweeps and succeeds."""
    model, cache = tiny.model_folder(tmp_path / "m"), tmp_path / "cache"
    with builder(model, cache, "hang") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.kill()
    (left,) = folders(cache)
    assert (left / "model.onnx").is_file()
    assert not list(cache.glob("*/" + MANIFEST_FILE))
    bundle = open_bundle(ModelSource(str(model), cache))
    assert folders(cache) == [bundle.path]


@pytest.mark.parametrize("file", ["model.onnx", "tokenizer.json", MANIFEST_FILE])
def test_damaged_cache_is_built_again(tmp_path: Path, file: str) -> None:
    """A cached bundle with one changed byte is noticed, and replaced by a whole one."""
    source = ModelSource(str(tiny.model_folder(tmp_path / "m")), tmp_path / "cache")
    whole = open_bundle(source)
    damage(whole.path / file)
    assert open_bundle(source).manifest == whole.manifest
    assert open_bundle(ModelSource(str(whole.path), tmp_path)).fingerprint == whole.fingerprint


@pytest.mark.parametrize("file", ["model.onnx", "tokenizer.json"])
def test_damaged_bundle_of_the_user_is_refused(tmp_path: Path, file: str) -> None:
    """A bundle given as a folder is never replaced: its damaged file is named."""
    source = ModelSource(str(tiny.model_folder(tmp_path / "m")), tmp_path / "cache")
    bundle = open_bundle(source)
    damage(bundle.path / file)
    with pytest.raises(ModelError, match=f"{file} — isn't the file"):
        open_bundle(ModelSource(str(bundle.path), tmp_path))


def damage(path: Path) -> None:
    """Changes one byte in the middle, not the size."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def test_changed_model_folder_is_built_anew(tmp_path: Path) -> None:
    """A model's folder whose files changed gives another bundle, with another fingerprint."""
    source = ModelSource(str(tiny.model_folder(tmp_path / "m")), tmp_path / "cache")
    before = open_bundle(source)
    shutil.rmtree(tmp_path / "m")
    tiny.model_folder(tmp_path / "m", seed=1)
    assert open_bundle(source).fingerprint != before.fingerprint


def test_fingerprint_follows_meaning(tmp_path: Path) -> None:
    """Length, pooling and prompts change the fingerprint; the folder's place doesn't."""
    cache = tmp_path / "cache"

    def fingerprint(name: str, **options: object) -> str:
        model = tiny.model_folder(tmp_path / name, **options)  # type: ignore[arg-type]
        return open_bundle(ModelSource(str(model), cache)).fingerprint

    plain = fingerprint("a")
    assert fingerprint("b") == plain
    prompted = fingerprint("c", prompts={"query": "query: "})
    pooled = fingerprint("d", pooling="cls")
    shorter = open_bundle(ModelSource(str(tmp_path / "a"), cache, max_tokens=16))
    assert len({plain, prompted, pooled, shorter.fingerprint}) == 4
    same = open_bundle(ModelSource(str(tmp_path / "a"), cache, max_tokens=32))
    assert same.fingerprint == plain


def test_length_beyond_the_model_is_refused(tmp_path: Path) -> None:
    """A length that the model can't take is refused with the range that it can."""
    model = tiny.model_folder(tmp_path / "m")
    with pytest.raises(ModelError, match=r"model\.max_tokens: 65 — .* takes from 1 to 64"):
        open_bundle(ModelSource(str(model), tmp_path / "cache", max_tokens=65))


def test_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """A folder without a model is refused in one line that names it."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"model\.name: .*empty — .*holds no model") as caught:
        open_bundle(ModelSource(str(tmp_path / "empty"), tmp_path / "cache"))
    assert "\n" not in str(caught.value)
    assert folders(tmp_path / "cache") == []


def test_name_of_nothing_tells_each_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads nowhere gives one line with each way that was tried."""

    def refuse(name: str, *_: object) -> origins.Ingredients:
        raise ModelError(f"no\n{name}")

    monkeypatch.setattr(origins, "_from_hub", refuse)
    monkeypatch.setattr(origins, "_from_export", refuse)
    with pytest.raises(ModelError) as caught:
        open_bundle(ModelSource("no-such/model", tmp_path))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("model.name: no-such/model — ")
    assert "hub: no no-such/model; export: no no-such/model" in text


def test_jar_with_a_wrong_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A jar whose graph isn't the known one isn't used, and the error says so."""
    jar = origins._JARS[MINILM]
    with zipfile.ZipFile(tmp_path / jar.file, "w") as archive:
        archive.writestr(jar.graph, "not the graph")
        archive.writestr(jar.tokenizer, "{}")
    monkeypatch.setattr(origins, "_PACKAGES", {})
    monkeypatch.setattr(origins, "_from_hub", origins._no_folder)
    monkeypatch.setattr(origins, "_from_export", lambda name, _: origins._no_folder(name))
    with pytest.raises(ModelError, match=r"jar refused: .* has sha256"):
        open_bundle(ModelSource(MINILM, tmp_path / "cache", [tmp_path]))


def test_jar_is_found_in_a_maven_repository(tmp_path: Path) -> None:
    """A jar is found as a file, in a folder, and in a repository's own layout."""
    jar = origins._JARS[MINILM]
    place = tmp_path.joinpath(*jar.group.split("."), jar.artifact, jar.version)
    place.mkdir(parents=True)
    (place / jar.file).touch()
    for given in (tmp_path, place, place / jar.file):
        assert origins._find_jar(jar, [tmp_path / "none", given]) == place / jar.file


def test_minilm_comes_whole_from_its_jar(source: ModelSource) -> None:
    """all-MiniLM-L6-v2 opens with its length, dimension and pooling, as two inputs, one output."""
    bundle = open_bundle(source)
    assert (bundle.dimension, bundle.max_tokens) == (384, 256)
    assert bundle.manifest.pooling == "mean"
    assert json.loads(bundle.tokenizer_file.read_bytes())["truncation"]["max_length"] == 256
    ids = np.array([[101, 7592, 102]], dtype=np.int64)
    vectors = OnnxRuntime(bundle.onnx_file).run(ids, np.ones_like(ids))
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors) == pytest.approx(1, abs=1e-5)


def test_cache_that_cant_be_written_is_named(tmp_path: Path) -> None:
    """A cache that is in truth a file is named together with the setting."""
    (tmp_path / "cache").touch()
    source = ModelSource(str(tiny.model_folder(tmp_path / "m")), tmp_path / "cache")
    with pytest.raises(ModelError, match=r"model\.cache: .*cache — can't be written"):
        open_bundle(source)
    assert open_bundle(replace(source, cache=tmp_path / "other")).dimension == tiny.WIDTH


@pytest.mark.parametrize("name", ["", "x" * 5000])
def test_name_that_no_system_takes_is_refused(tmp_path: Path, name: str) -> None:
    """An empty and an endless name are refused as names, not as a broken cache."""
    with pytest.raises(ModelError, match=r"model\.name: "):
        open_bundle(ModelSource(name, tmp_path))
