"""Writes the int8 form of a bundle: measured on texts, with what matters most left in floats.

What each group's activations are like is measured on most of the texts, and each group is fitted
to that. Then each is tried alone on the other texts, and its error weighed against the work that it
saves: the groups that cost most accuracy stay in floats, until what the others cost together is
small. On the default model those are most of the second products of the feed-forward blocks, whose
activations have outliers that would leave the rest too few of the 256 steps.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import tokenizers
from onnx import helper, numpy_helper

from operators.model.errors import ModelError
from operators.model.manifest import (
    GRAPH_FILE,
    TOKENIZER_FILE,
    FileRecord,
    Manifest,
    meaning,
)
from operators.model.onnx import OnnxRuntime
from operators.model.padding import pad
from operators.model.quantize import Activations, Fitted, Group, fit, groups_of, rewrite
from operators.model.sample import TEXTS, mixed
from operators.tokenize import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from operators.model.bundle import Bundle

__all__ = ["default_texts", "digest_of", "write_int8"]

# Tokens kept of each group's activations; their range is taken over all.
_TOKENS: Final = 1000
_CALL_TOKENS: Final = 512
# Texts on which each group is tried alone.
_TRIALS: Final = 64
# What all groups in int8 may cost together, as 1 less the mean cosine to the floats' vectors.
# So the default model keeps 97 % of its nearest neighbours (docs/model.md has the figures).
_MOST_ERROR: Final = 0.0003
_SEED: Final = 8
# What tokenizers mark the beginnings or the insides of words with.
_WORD_MARKS: Final = "▁Ġ#"


def write_int8(bundle: Bundle, texts: Sequence[str], folder: Path) -> Manifest:
    """Fills an empty folder with a bundle's int8 form; the manifest last.

    The same texts give the same graph, on the same machine and versions.

    Args:
        bundle: in fp32.
        texts: like those to come; a few hundred are enough.
        folder: exists and is empty.

    Raises:
        ModelError: the graph has nothing to quantise, or too much would be lost.
        OSError: the folder can't be written.
    """
    model = onnx.load(str(bundle.onnx_file))
    groups = groups_of(model)
    batches = _Batches(bundle, texts)
    weights = {one.name: one for one in model.graph.initializer}
    seen = _activations(model, groups, batches)
    fitted = [
        fit(group, [numpy_helper.to_array(weights[name]) for name in group.weights], activations)
        for group, activations in seen
    ]
    if not fitted:
        raise ModelError("model graph: no products of token states — nothing for int8")
    taken = _choose(fitted, _errors(model, fitted, batches))
    if not taken:
        raise ModelError("model graph: every product loses too much in int8; keep to fp32 or bf16")
    data = rewrite(model, taken).SerializeToString(deterministic=True)
    (folder / GRAPH_FILE).write_bytes(data)
    shutil.copyfile(bundle.tokenizer_file, folder / TOKENIZER_FILE)
    manifest = _describe(bundle, texts, folder, taken, groups)
    manifest.write(folder)
    return manifest


def default_texts(bundle: Bundle) -> list[str]:
    """Texts to calibrate on where there are none of one's own."""
    tokenizer = tokenizers.Tokenizer.from_file(str(bundle.tokenizer_file))
    marks = dict.fromkeys(map(ord, _WORD_MARKS))
    vocabulary = {entry.translate(marks) for entry in tokenizer.get_vocab()}
    return [*TEXTS, *mixed(sorted(vocabulary - {""}))]


def digest_of(texts: Sequence[str]) -> str:
    """What tells lists of texts apart: 16 hex digits."""
    return hashlib.blake2b(json.dumps(list(texts)).encode(), digest_size=8).hexdigest()


class _Batches:
    """The texts in calls of like length: most to fit to, and others to try out what was fitted."""

    def __init__(self, bundle: Bundle, texts: Sequence[str]) -> None:
        manifest = bundle.manifest
        tokenizer = Tokenizer(
            bundle.tokenizer_file,
            max_tokens=bundle.max_tokens,
            prompt=manifest.prompts["document"],
        )
        rows = [tokenizer.encode(text).chunks[0].ids for text in texts]
        step = max(2, -(-len(rows) // _TRIALS))
        fitted = [row for number, row in enumerate(rows) if number % step]
        self.fitted = list(_calls(fitted, manifest.pad_id))
        self.trials = list(_calls(rows[::step], manifest.pad_id))
        self.tokens = sum(len(row) for row in fitted)


def _calls(
    rows: list[list[int]], pad_id: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows in order of length, as many to a call as it should have tokens."""
    held: list[list[int]] = []
    for row in sorted(rows, key=len):
        if held and len(row) * (len(held) + 1) > _CALL_TOKENS:
            yield pad(held, pad_id)
            held = []
        held.append(row)
    yield pad(held, pad_id)


def _activations(
    model: onnx.ModelProto, groups: Sequence[Group], batches: _Batches
) -> list[tuple[Group, Activations]]:
    """What the activations of each group are like; groups that aren't of tokens are left out."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    names = [group.source for group in groups]
    probed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    runtime = OnnxRuntime(probed.SerializeToString())
    dice = np.random.default_rng(_SEED)
    share = min(1.0, _TOKENS / batches.tokens)
    held: list[list[NDArray[np.float32]]] = [[] for _ in groups]
    edges: list[list[NDArray[np.float32]]] = [[] for _ in groups]
    for input_ids, mask in batches.fitted:
        real = mask.astype(bool)
        some = dice.random(int(mask.sum())) < share
        for index, found in enumerate(runtime.probe(names, input_ids, mask)):
            if found.shape[:2] == mask.shape and found.ndim == 3:
                rows = found[real]
                held[index].append(rows[some])
                edges[index] += [rows.min(axis=0), rows.max(axis=0)]
    return [
        (group, Activations(np.min(edge, axis=0), np.max(edge, axis=0), np.concatenate(rows)))
        for group, edge, rows in zip(groups, edges, held, strict=True)
        if rows
    ]


def _errors(model: onnx.ModelProto, fitted: Sequence[Fitted], batches: _Batches) -> list[float]:
    """What each group alone costs in int8: 1 less the mean cosine to the floats' vectors."""
    truth = _vectors(model, batches)
    errors = []
    for one in fitted:
        vectors = _vectors(rewrite(model, [one]), batches)
        errors.append(max(0.0, 1.0 - float((vectors * truth).sum(axis=1).mean())))
    return errors


def _vectors(model: onnx.ModelProto, batches: _Batches) -> NDArray[np.float64]:
    """The trial texts' vectors: float64 [texts, dimension], as rounding would hide the errors."""
    # Exact, or the processor that this runs on would decide what is fit for all others.
    runtime = OnnxRuntime(model.SerializeToString(), exact=True)
    found = np.concatenate([runtime.run(*call) for call in batches.trials]).astype(np.float64)
    unit: NDArray[np.float64] = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


def _choose(fitted: Sequence[Fitted], errors: Sequence[float]) -> list[Fitted]:
    """The groups to quantise, in the graph's order: those that cost least for what they save."""
    order = sorted(range(len(fitted)), key=lambda own: errors[own] / fitted[own].group.size)
    total = np.cumsum([errors[own] for own in order])
    taken = order[: int(np.searchsorted(total, _MOST_ERROR, side="right"))]
    return [fitted[own] for own in sorted(taken)]


def _describe(
    bundle: Bundle,
    texts: Sequence[str],
    folder: Path,
    taken: Sequence[Fitted],
    groups: Sequence[Group],
) -> Manifest:
    """The manifest of the files in `folder`."""
    own = bundle.manifest
    files = {file: FileRecord.of(folder / file) for file in (GRAPH_FILE, TOKENIZER_FILE)}
    in_int8 = {output for one in taken for output in one.group.nodes}
    kept = [output for group in groups for output in group.nodes if output not in in_int8]
    quantized: dict[str, Any] = {
        "of": own.fingerprint,
        "texts": len(texts),
        "texts_digest": digest_of(texts),
        "products": len(in_int8),
        "kept": kept,
    }
    fingerprint = meaning(
        files,
        dimension=own.dimension,
        max_tokens=own.max_tokens,
        pooling="+".join((own.pooling, *own.dense)),
        prompts=own.prompts,
    )
    return replace(own, precision="int8", files=files, fingerprint=fingerprint, quantized=quantized)
