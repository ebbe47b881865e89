"""Reads a model's folder as sentence-transformers and the hub lay it out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from operators.model.errors import ModelError
from operators.model.graph import ACTIVATIONS, POOLINGS, Dense, Normalize

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Layout", "read_layout", "tokenizer_text"]

# Pooling as older releases wrote it: a flag for each way, in the order of concatenation.
_POOLING_FLAGS: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_DOCUMENT_PROMPTS: Final = ("document", "passage", "corpus")
# Tokenizers without a limit of their own say so by a number of this size.
_NO_LIMIT: Final = 1_000_000
_SAFETENSORS_TYPES: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


@dataclass(frozen=True, slots=True)
class Layout:
    """What surrounds the transformer, as the model's folder says.

    Attributes:
        max_tokens: the most tokens of one input, special ones included.
        max_positions: the most tokens that the transformer can take; 0 if unknown.
        pad_id: the token that fills short rows.
        pooling: one or more ways, concatenated.
        heads: layers after pooling, in order.
        document_prompt: put before a document.
        query_prompt: put before a query.
        lowercase: whether text is lower-cased before it is tokenised.
    """

    max_tokens: int
    max_positions: int = 0
    pad_id: int = 0
    pooling: tuple[str, ...] = ("mean",)
    heads: tuple[Dense | Normalize, ...] = field(default=())
    document_prompt: str = ""
    query_prompt: str = ""
    lowercase: bool = False


def read_layout(folder: Path) -> Layout:
    """Reads everything but the transformer itself.

    Args:
        folder: holds `tokenizer.json` and, as far as the model has them, `modules.json`,
            `config.json`, `1_Pooling/config.json`, `2_Dense/`, `config_sentence_transformers.json`
            and `sentence_bert_config.json`.

    Raises:
        ModelError: a module or a setting that isn't supported, or a file that can't be read.
    """
    config = _json(folder / "config.json")
    pooling, heads, include_prompt = _modules(folder)
    document, query = _prompts(folder)
    if (document or query) and not include_prompt:
        raise ModelError(f"model pooling: {folder.name} — leaves the prompt out: not supported")
    extra = _json(folder / "sentence_bert_config.json")
    positions = int(config.get("max_position_embeddings") or 0)
    return Layout(
        max_tokens=_max_tokens(folder, extra, positions),
        max_positions=positions,
        pad_id=_pad_id(folder, config),
        pooling=pooling,
        heads=heads,
        document_prompt=document,
        query_prompt=query,
        lowercase=bool(extra.get("do_lower_case")),
    )


def tokenizer_text(raw: bytes, *, max_tokens: int, lowercase: bool) -> str:
    """A `tokenizer.json` that truncates at `max_tokens` and doesn't pad.

    Raises:
        ModelError: it isn't JSON.
    """
    try:
        tokenizer = json.loads(raw)
    except ValueError as error:
        raise ModelError(f"model tokenizer: can't be read ({error})") from error
    tokenizer["padding"] = None
    tokenizer["truncation"] = {
        "direction": "Right",
        "max_length": max_tokens,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    if lowercase:
        own = tokenizer.get("normalizer")
        steps = [{"type": "Lowercase"}, *([own] if own else [])]
        tokenizer["normalizer"] = {"type": "Sequence", "normalizers": steps}
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no file."""
    try:
        read = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"model file: {path.name} — can't be read ({error})") from error
    if not isinstance(read, dict):
        raise ModelError(f"model file: {path.name} — must be a JSON object")
    return read


def _modules(folder: Path) -> tuple[tuple[str, ...], tuple[Dense | Normalize, ...], bool]:
    """Ways of pooling, the layers after it, and whether pooling sees the prompt."""
    try:
        modules = json.loads((folder / "modules.json").read_bytes())
    except FileNotFoundError:
        return ("mean",), (), True  # A bare transformer: as sentence-transformers takes it.
    except (OSError, ValueError) as error:
        raise ModelError(f"model file: modules.json — can't be read ({error})") from error
    pooling: tuple[str, ...] = ("mean",)
    heads: list[Dense | Normalize] = []
    include_prompt = True
    for module in modules:
        kind, at = str(module["type"]).rpartition(".")[2], folder / str(module["path"])
        if kind == "Pooling":
            config = _json(at / "config.json")
            pooling, include_prompt = _pooling(config), bool(config.get("include_prompt", True))
        elif kind == "Normalize":
            heads.append(Normalize())
        elif kind == "Dense":
            heads.append(_dense(at))
        elif kind != "Transformer":
            raise ModelError(f"model module: {kind} — not supported")
    return pooling, tuple(heads), include_prompt


def _pooling(config: dict[str, Any]) -> tuple[str, ...]:
    """Ways of pooling, from either form of the configuration."""
    mode = config.get("pooling_mode")
    if mode is None:
        ways = tuple(way for flag, way in _POOLING_FLAGS.items() if config.get(flag))
    else:
        ways = (mode,) if isinstance(mode, str) else tuple(mode)
    unknown = [way for way in ways if way not in POOLINGS]
    if unknown or not ways:
        raise ModelError(
            f"model pooling: {'+'.join(ways) or 'none'} — not supported; "
            f"known are {', '.join(POOLINGS)}"
        )
    return ways


def _dense(folder: Path) -> Dense:
    """A dense layer with its weights."""
    config = _json(folder / "config.json")
    own = config.get("module_input_name", "sentence_embedding") == "sentence_embedding"
    if not own or config.get("use_residual"):
        raise ModelError(f"model module: {folder.name} — a dense layer of a kind not supported")
    name = str(config.get("activation_function") or "Identity").rpartition(".")[2]
    if name not in ACTIVATIONS:
        raise ModelError(
            f"model dense layer: {name} — not supported; known are {', '.join(ACTIVATIONS)}"
        )
    weights = _safetensors(folder / "model.safetensors")
    return Dense(weights["linear.weight"], weights.get("linear.bias"), name)


def _safetensors(path: Path) -> dict[str, Any]:
    """The float arrays of a safetensors file, as float32.

    Eight bytes with the size of a JSON header, the header, then the arrays at its offsets.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"model file: {path.parent.name}/{path.name} — can't be read") from error
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        if entry["dtype"] not in _SAFETENSORS_TYPES:
            raise ModelError(f"model file: {path.name} — {entry['dtype']} weights not supported")
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        array = np.frombuffer(data[start:end], _SAFETENSORS_TYPES[entry["dtype"]])
        arrays[name] = array.reshape(entry["shape"]).astype(np.float32)
    return arrays


def _prompts(folder: Path) -> tuple[str, str]:
    """The prompts for documents and for queries."""
    config = _json(folder / "config_sentence_transformers.json")
    prompts: dict[str, str] = config.get("prompts") or {}
    default = prompts.get(config.get("default_prompt_name") or "", "")
    document = next((prompts[name] for name in _DOCUMENT_PROMPTS if prompts.get(name)), default)
    return document or "", prompts.get("query") or default or ""


def _max_tokens(folder: Path, extra: dict[str, Any], positions: int) -> int:
    """The most tokens of an input, by the first file that says so."""
    own = extra.get("max_seq_length")
    limit = _json(folder / "tokenizer_config.json").get("model_max_length")
    truncation = _json(folder / "tokenizer.json").get("truncation") or {}
    known = [int(size) for size in (limit, positions) if size and int(size) < _NO_LIMIT]
    found = own or (min(known) if known else truncation.get("max_length"))
    if not found:
        raise ModelError("model max_tokens: no file of the model says how long a text may be")
    return int(found)


def _pad_id(folder: Path, config: dict[str, Any]) -> int:
    """The token that fills short rows; some models tell positions from it."""
    padding = _json(folder / "tokenizer.json").get("padding") or {}
    found = config.get("pad_token_id")
    return int(padding.get("pad_id", 0) if found is None else found)
