"""The real model, opened once for all tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from operators.model import Bundle, Encoder, ModelSource, load_encoder, make_int8, open_bundle

ROOT = Path(__file__).parents[3]
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
JARS = (ROOT / "build" / "jars", Path.home() / ".m2" / "repository")


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """all-MiniLM-L6-v2, with a cache of this session's own."""
    return ModelSource(MINILM, tmp_path_factory.mktemp("models"), JARS)


@pytest.fixture(scope="session")
def minilm(source: ModelSource) -> Bundle:
    """Its bundle."""
    return open_bundle(source)


@pytest.fixture(scope="session")
def quantized(minilm: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A copy of its bundle with the int8 form that Headrace makes by itself."""
    path = tmp_path_factory.mktemp("quantized") / "bundle"
    shutil.copytree(minilm.path, path)
    bundle = open_bundle(ModelSource(str(path), path.parent))
    make_int8(bundle)
    return bundle


@pytest.fixture(scope="session")
def encoder(source: ModelSource, minilm: Bundle) -> Encoder:
    """Its encoder, as the reference runs it."""
    assert minilm.path.is_dir()
    return load_encoder(source, runtime="onnxruntime", precision="fp32")
