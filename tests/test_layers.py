"""Which folder may import which, and which one place speaks to a foreign library."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.process import ROOT

# A folder may import those of the lines below its own, and itself.
LAYERS = (
    {"cli", "harness"},
    {"serving"},
    {"flows"},
    {"sinks", "sources"},
    {"recovery"},
    {"telemetry"},
    {"operators", "clients"},
    {"headrace"},
)
ONE_PLACE = {
    "confluent_kafka.schema_registry": "clients/registry",
    "onnxruntime": "operators/model/onnx.py",
    "opentelemetry": "telemetry/tracing.py",
    "openvino": "operators/model/vino.py",
    "sentence_transformers": "operators/model/export.py",
    "torch": "operators/model/export.py",
}
MODULES = [
    path.relative_to(ROOT)
    for layer in LAYERS
    for folder in sorted(layer)
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def named(path: Path) -> Iterator[str]:
    """What a module imports, anywhere in it, by full names."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def imported(path: Path) -> Iterator[str]:
    """The top packages that a module imports, anywhere in it."""
    return (name.partition(".")[0] for name in named(path))


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_dependencies_point_one_way(path: Path) -> None:
    """No module imports from a layer above its own, or from its neighbour."""
    folder = path.parts[0]
    level = next(number for number, layer in enumerate(LAYERS) if folder in layer)
    allowed = set().union(*LAYERS[level + 1 :], {folder})
    ours = set().union(*LAYERS)
    assert not (set(imported(path)) & ours) - allowed


def test_what_is_no_flow_needs_no_bytewax() -> None:
    """The server, and the command that searches, load nothing of the engine, by any way."""
    check = "import sys, cli.serve, cli.search; sys.exit('bytewax' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True, timeout=120)


@pytest.mark.parametrize(("library", "place"), ONE_PLACE.items())
def test_one_place_speaks_to_a_library(library: str, place: str) -> None:
    """What runs models, sends spans, asks a registry: imported in one place, to be left out."""
    using = {
        str(path)
        for path in MODULES
        if any(f"{name}.".startswith(f"{library}.") for name in named(path))
    }
    assert using
    assert all(path == place or path.startswith(f"{place}/") for path in using)
