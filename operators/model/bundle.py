"""Bundles: found, or built once and cached.

A bundle is a folder with `model.onnx`, `tokenizer.json` and `manifest.json`. It is built in a
folder of its own beside its place, made durable, and renamed there in one step, under a lock: two
builders at once make one bundle, and a builder that is killed leaves nothing that could be taken
for one. Leftovers are swept by the next builder. A folder `int8` inside it, made in the same way
when asked for, is the same model in int8: a bundle too, whose vectors have a fingerprint of their
own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import FileLock, Timeout

from operators.model.errors import CacheError, ModelError
from operators.model.manifest import (
    GRAPH_FILE,
    MANIFEST_FILE,
    TOKENIZER_FILE,
    Manifest,
    meaning,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "INT8_FOLDER",
    "Bundle",
    "ModelSource",
    "assemble",
    "locked",
    "open_bundle",
    "sweep",
    "unwritable",
]

INT8_FOLDER: Final = "int8"
_MAKE_INT8: Final = "headrace model quantize"

_LOCK_SECONDS: Final = 900.0
_STAMPED: Final = (
    "onnx/model.onnx",
    "model.onnx",
    "model.safetensors",
    "tokenizer.json",
    "modules.json",
    "config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Which model, and where to look for it.

    Attributes:
        name: a hub id, a model's folder, or a bundle's.
        cache: folder of built bundles and of what was measured on this machine.
        jars: files, folders with jars, and Maven repositories that may carry the model.
        max_tokens: the most tokens of one input, in place of the model's own limit.
    """

    name: str
    cache: Path
    jars: Sequence[Path] = ()
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model on this machine's disk, complete and checked.

    Attributes:
        path: its folder.
        manifest: what it says of itself.
        max_tokens: the most tokens of one input, as asked for or else the model's own.
        measurements: folder for what is measured of it on this machine.
    """

    path: Path
    manifest: Manifest
    max_tokens: int
    measurements: Path

    @property
    def onnx_file(self) -> Path:
        """The graph: `input_ids`, `attention_mask` to unit vectors."""
        return self.path / GRAPH_FILE

    @property
    def tokenizer_file(self) -> Path:
        """The model's own tokenizer."""
        return self.path / TOKENIZER_FILE

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def dimension(self) -> int:
        """Floats in a vector."""
        return self.manifest.dimension

    @property
    def fingerprint(self) -> str:
        """Of what the vectors mean, at the length in use; 16 hex digits."""
        own = self.manifest
        if self.max_tokens == own.max_tokens:
            return own.fingerprint
        return meaning(
            own.files,
            dimension=own.dimension,
            max_tokens=self.max_tokens,
            pooling="+".join((own.pooling, *own.dense)),
            prompts=own.prompts,
        )

    def at(self, precision: str) -> Bundle:
        """The form of this model that runs in a precision: itself, or its int8 form.

        Raises:
            ModelError: as `int8`.
        """
        return self.int8() if precision == "int8" else self

    def int8(self) -> Bundle:
        """The same model in int8.

        Raises:
            ModelError: it wasn't made yet, is damaged, or is of another graph.
        """
        path = self.path / INT8_FOLDER
        if not path.is_dir():
            raise ModelError(
                f"model.precision: int8 — this bundle has no int8 graph; make it: {_MAKE_INT8}"
            )
        manifest = Manifest.read(path)
        if (manifest.quantized or {}).get("of") != self.manifest.fingerprint:
            raise ModelError(
                f"model bundle: {path} — is of another graph; delete the folder, then: {_MAKE_INT8}"
            )
        return replace(self, path=path, manifest=manifest)

    @property
    def has_int8(self) -> bool:
        """Whether the model was made in int8, too."""
        return (self.path / INT8_FOLDER).is_dir()


def open_bundle(source: ModelSource) -> Bundle:
    """The bundle of a model, built if need be.

    Raises:
        ModelError: there is no such model, a bundle is damaged or the cache can't be written, or
            `max_tokens` is more than the model can take.
    """
    named = Path(source.name)
    if _is_bundle(named):
        path, manifest = named, Manifest.read(named)
        if manifest.quantized is not None:
            raise ModelError(
                f"model.name: {named} — is the int8 form of a bundle; name the bundle's own "
                "folder, and set model.precision to int8"
            )
    else:
        path = source.cache / _folder_name(source.name)
        manifest = _cached(path) or _build_once(source, path)
    return Bundle(
        path=path,
        manifest=manifest,
        max_tokens=_max_tokens(source.max_tokens, manifest),
        measurements=source.cache,
    )


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock beside `path` against other processes.

    Raises:
        CacheError: it can't be had, or its folder can't be written.
    """
    lock = FileLock(path.with_name(path.name + ".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout as error:
        raise CacheError(
            f"model.cache: {path.parent} — another process has held {lock.lock_file} for "
            f"{_LOCK_SECONDS:.0f} s; end it, or use another folder"
        ) from error
    except OSError as error:
        raise unwritable(path.parent, error) from error
    try:
        yield
    finally:
        lock.release()


def _is_bundle(folder: Path) -> bool:
    """Whether a name is a bundle's folder."""
    if not folder.name and not folder.is_absolute():
        raise ModelError("model.name: — is empty; give a hub id, a model's folder or a bundle's")
    try:
        return (folder / MANIFEST_FILE).is_file()
    except OSError as error:
        raise ModelError(
            f"model.name: {str(folder)[:200]} — can't be looked up ({error.strerror})"
        ) from error


def _cached(path: Path) -> Manifest | None:
    """The manifest of a cached bundle; none where there isn't one, or it is damaged."""
    if not path.is_dir():
        return None
    try:
        return Manifest.read(path)
    except ModelError:
        return None  # Built again from its source.


def _build_once(source: ModelSource, path: Path) -> Manifest:
    """Builds a bundle at `path`, unless another process did so meanwhile."""
    from operators.model.build import write_bundle  # noqa: PLC0415 - brings onnx, slow to import

    with locked(path):
        manifest = _cached(path)
        if manifest is not None:
            return manifest
        try:
            sweep(path)
            return assemble(path, partial(write_bundle, source.name, source.jars))
        except OSError as error:
            raise unwritable(path.parent, error) from error


def assemble(path: Path, fill: Callable[[Path], Manifest]) -> Manifest:
    """Builds a bundle beside `path`, makes it durable, and puts it there.

    Args:
        path: where it goes; what is there is replaced, but for its int8 form.
        fill: writes the files into an empty folder.

    Raises:
        OSError: it can't be written.
    """
    folder = Path(tempfile.mkdtemp(prefix=_temporary(path), dir=path.parent))
    try:
        manifest = fill(folder)
        for file in folder.iterdir():
            _sync(file)
        _sync(folder)
        # In the cache, only a damaged bundle can be in the way here. Its int8 form outlives it:
        # tables may depend on that one, and it says itself whether it is of the new graph.
        with contextlib.suppress(OSError):
            (path / INT8_FOLDER).rename(folder / INT8_FOLDER)
        shutil.rmtree(path, ignore_errors=True)
        folder.rename(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return manifest


def sweep(path: Path) -> None:
    """Removes what killed builders of `path` left; only under the lock."""
    for left in path.parent.glob(_temporary(path) + "*"):
        shutil.rmtree(left, ignore_errors=True)


def _temporary(path: Path) -> str:
    """How the folders that a bundle is built in begin."""
    return f".{path.name}.building-"


def _sync(path: Path) -> None:
    """Makes a file's content, or a folder's entries, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _folder_name(name: str) -> str:
    """A readable folder for a model; for a model's folder, another one once its files change."""
    folder = Path(name)
    identity = [name]
    if folder.is_dir():
        identity = [str(folder.resolve())]
        for file in (folder / part for part in _STAMPED):
            with contextlib.suppress(OSError):
                stat = file.stat()
                identity.append(f"{file.name} {stat.st_size} {stat.st_mtime_ns}")
    digest = hashlib.blake2b("\n".join(identity).encode(), digest_size=4).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9._-]+", "--", folder.name if folder.is_dir() else name)
    return f"{readable.strip('.-')[:80]}-{digest}"


def _max_tokens(asked: int | None, manifest: Manifest) -> int:
    """The length in use, within what the model can take."""
    if asked is None:
        return manifest.max_tokens
    most = max(manifest.max_tokens, manifest.max_positions)
    if not 1 <= asked <= most:
        raise ModelError(f"model.max_tokens: {asked} — {manifest.name} takes from 1 to {most}")
    return asked


def unwritable(folder: Path, error: OSError) -> CacheError:
    """The error of a cache whose folder can't be written."""
    return CacheError(
        f"model.cache: {folder} — can't be written ({error.strerror or error}); "
        "use a folder of your own"
    )
