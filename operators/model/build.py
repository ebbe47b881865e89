"""Writes a bundle's files: the slow part, which only a builder imports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import tokenizers

from operators.model.errors import ModelError
from operators.model.graph import finish, opset_of
from operators.model.layout import tokenizer_text
from operators.model.manifest import (
    GRAPH_FILE,
    TOKENIZER_FILE,
    VERSION,
    FileRecord,
    Manifest,
    meaning,
)
from operators.model.onnx import OnnxRuntime
from operators.model.origins import Ingredients, gather

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx

__all__ = ["try_out", "write_bundle", "write_graph"]

# What a Protobuf message, and so one ONNX file, can hold.
_LARGEST_GRAPH: Final = 2**31 - 1


def write_bundle(name: str, jars: Sequence[Path], folder: Path) -> Manifest:
    """Fills an empty folder with a model's bundle; the manifest last.

    Args:
        name: a hub id or a model's folder.
        jars: where jars may lie that carry the model.
        folder: exists and is empty.

    Raises:
        ModelError: there is no such model, or it is of a kind that isn't supported.
        OSError: the folder can't be written.
    """
    made = gather(name, jars)
    layout = made.layout
    model = finish(made.graph, layout.pooling, layout.heads)
    write_graph(model, folder / GRAPH_FILE, name)
    text = tokenizer_text(made.tokenizer, max_tokens=layout.max_tokens, lowercase=layout.lowercase)
    (folder / TOKENIZER_FILE).write_text(text, encoding="utf-8")
    manifest = _describe(name, made, folder, opset_of(model))
    manifest.write(folder)
    return manifest


def write_graph(model: onnx.ModelProto, path: Path, name: str) -> None:
    """Writes a graph, the same bytes for the same content.

    Raises:
        ModelError: it is too large for one file.
    """
    try:
        data = model.SerializeToString(deterministic=True)
    except ValueError as error:
        raise ModelError(f"model.name: {name} — larger than 2 GB, which isn't supported") from error
    if len(data) > _LARGEST_GRAPH:
        raise ModelError(f"model.name: {name} — larger than 2 GB, which isn't supported")
    path.write_bytes(data)


def _describe(name: str, made: Ingredients, folder: Path, opset: int) -> Manifest:
    """The manifest of the files in `folder`."""
    layout = made.layout
    dense = tuple(str(head) for head in layout.heads if str(head) != "normalize")
    dimension = try_out(folder)
    files = {file: FileRecord.of(folder / file) for file in (GRAPH_FILE, TOKENIZER_FILE)}
    prompts = {"document": layout.document_prompt, "query": layout.query_prompt}
    pooling = "+".join(layout.pooling)
    return Manifest(
        version=VERSION,
        name=name,
        source=made.source,
        source_sha256=made.source_sha256,
        dimension=dimension,
        max_tokens=layout.max_tokens,
        max_positions=layout.max_positions,
        pad_id=layout.pad_id,
        pooling=pooling,
        dense=dense,
        prompts=prompts,
        precision="fp32",
        opset=opset,
        fingerprint=meaning(
            files,
            dimension=dimension,
            max_tokens=layout.max_tokens,
            pooling="+".join((pooling, *dense)),
            prompts=prompts,
        ),
        files=files,
    )


def try_out(folder: Path) -> int:
    """Runs a new bundle's graph on its own tokenizer's output; gives the vectors' dimension.

    Raises:
        ModelError: they don't fit each other, or don't give unit vectors.
    """
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        ids = tokenizer.encode("a b").ids or [0]
        batch = np.array([ids, ids], dtype=np.int64)
        vectors = OnnxRuntime(folder / GRAPH_FILE).run(batch, np.ones_like(batch))
    except ModelError:
        raise
    except Exception as error:
        # Runtime and tokenizer raise kinds of their own for models that aren't whole.
        text = " ".join(str(error).split())
        raise ModelError(f"model graph: {GRAPH_FILE} — doesn't run ({text})") from error
    lengths = np.linalg.norm(vectors, axis=-1)
    if vectors.ndim != 2 or len(vectors) != 2 or not np.allclose(lengths, 1, atol=1e-4):
        raise ModelError(f"model graph: {GRAPH_FILE} — doesn't give a unit vector for each text")
    return int(vectors.shape[1])
