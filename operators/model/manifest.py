"""What a bundle says of itself: `manifest.json`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from operators.model.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "GRAPH_FILE",
    "MANIFEST_FILE",
    "TOKENIZER_FILE",
    "VERSION",
    "FileRecord",
    "Manifest",
    "meaning",
    "sha256_of",
]

VERSION: Final = 1
MANIFEST_FILE: Final = "manifest.json"
GRAPH_FILE: Final = "model.onnx"
TOKENIZER_FILE: Final = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file's size in bytes and its sha256 in hex."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        """Reads the file through.

        Raises:
            OSError: it can't be read.
        """
        return cls(path.stat().st_size, sha256_of(path))


@dataclass(frozen=True, slots=True)
class Manifest:
    """A bundle's description.

    Attributes:
        version: of this format.
        name: the model's name as asked for.
        source: where the graph came from, without any path of a machine.
        source_sha256: of the file or weights that it was made from.
        dimension: floats in a vector.
        max_tokens: the most tokens of one input, special ones included.
        max_positions: the most tokens that the graph can take; 0 if unknown.
        pad_id: the token that fills short rows.
        pooling: `mean`, `cls`, `max`, `lasttoken` or `mean_sqrt_len`; several joined by `+`.
        dense: each further layer, such as `768x256 Tanh`.
        prompts: `document` and `query`, put before a text.
        precision: of the graph's weights.
        opset: the graph's ONNX operator set.
        fingerprint: of what the vectors mean, at `max_tokens`; 16 hex digits.
        files: size and sha256 of the graph and the tokenizer.
        quantized: of a graph in int8: the fingerprint that it was made of, number and digest of
            the texts that it was calibrated on, how many matrix products are in int8, and which
            were kept in floats.
    """

    version: int
    name: str
    source: str
    source_sha256: str
    dimension: int
    max_tokens: int
    max_positions: int
    pad_id: int
    pooling: str
    dense: tuple[str, ...]
    prompts: dict[str, str]
    precision: str
    opset: int
    fingerprint: str
    files: dict[str, FileRecord]
    quantized: dict[str, Any] | None = None

    def write(self, folder: Path) -> None:
        """Writes `manifest.json` into `folder`.

        Raises:
            OSError: it can't be written.
        """
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Reads `manifest.json` of `folder`, and holds the folder's files against it.

        Raises:
            ModelError: it is missing, of another version or malformed, or a file isn't the one
                that it describes.
        """
        manifest = cls._parse(folder)
        for name, record in manifest.files.items():
            _check_file(folder / name, record)
        return manifest

    @classmethod
    def _parse(cls, folder: Path) -> Manifest:
        path = folder / MANIFEST_FILE
        try:
            raw: dict[str, Any] = json.loads(path.read_bytes())
            raw["files"] = {name: FileRecord(**entry) for name, entry in raw["files"].items()}
            raw["dense"] = tuple(raw["dense"])
            manifest = cls(**raw)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelError(f"model bundle: {path} — can't be read ({error})") from error
        if manifest.version != VERSION or {GRAPH_FILE, TOKENIZER_FILE} - set(manifest.files):
            raise ModelError(
                f"model bundle: {path} — version {manifest.version}, but this Headrace reads "
                f"version {VERSION}; delete the folder to have it built again"
            )
        return manifest


def meaning(
    files: dict[str, FileRecord],
    *,
    dimension: int,
    max_tokens: int,
    pooling: str,
    prompts: dict[str, str],
) -> str:
    """The fingerprint of what a model's vectors mean: 16 hex digits.

    Vectors of one fingerprint may be compared with each other. The runtime and its precision of
    arithmetic leave it as it is; another graph, tokenizer, length or prompt doesn't.
    """
    parts = {
        "graph": files[GRAPH_FILE].sha256,
        "tokenizer": files[TOKENIZER_FILE].sha256,
        "dimension": dimension,
        "max_tokens": max_tokens,
        "pooling": pooling,
        "prompts": prompts,
    }
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, in hex.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_file(path: Path, record: FileRecord) -> None:
    """Refuses a file that isn't the one recorded; the size first, as it costs nothing."""
    try:
        same = path.stat().st_size == record.size and sha256_of(path) == record.sha256
    except OSError as error:
        raise ModelError(f"model bundle: {path} — can't be read ({error.strerror})") from error
    if not same:
        raise ModelError(
            f"model bundle: {path} — isn't the file that its manifest describes; "
            "delete the folder to have it built again"
        )
