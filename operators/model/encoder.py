"""Texts to vectors: tokenised, sorted by length, cut into calls, and put back in order."""

from __future__ import annotations

import time
from contextlib import nullcontext
from copy import copy
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from operators.batching import CostModel, cut
from operators.encoding import Changed, Encoded
from operators.model.bundle import Bundle, ModelSource, open_bundle
from operators.model.choose import LEAST_AGREEMENT, Choice, choose
from operators.model.padding import pad
from operators.model.runtime import Candidate, Runtime, open_runtime
from operators.tokenize import ONE_CHUNK, Chunk, Chunking, Tokenized, Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from operators.encoding import Input

    OnInference = Callable[[int, int, int, float], None]

__all__ = ["Encoder", "describe", "load_encoder"]

# Larger calls fall out of the processor's cache, and cost more for each token.
_BATCH_TOKENS: Final = 512
# Of a static bundle that is true of larger calls still: its tokens are looked up, not computed.
# A transformer's take some hundred times as long as this.
_LOOKED_UP_S: Final = 1e-6
_LOOKED_UP_TOKENS: Final = 2048


class Encoder:
    """Encodes documents and queries; safe for several threads.

    Args:
        bundle: the model.
        runtime: what runs its graph.
        cost: what a call costs, by which batches are cut.
        chunking: how a long document is cut.
        batch_tokens: the most padded tokens of one call; if not given 512, or 2048 where a token
            costs next to nothing.
        on_inference: told of each call: rows, tokens without and with padding, wall seconds.
        served_by: the names of runtime and precision.

    Raises:
        UsageError: limits that leave no room for text.

    Attributes:
        name: the model's name.
        served_by: the names of runtime and precision.
        fingerprint: of what the vectors mean.
        dimension: floats in a vector.
        max_tokens: the most tokens of one chunk.
    """

    def __init__(
        self,
        bundle: Bundle,
        runtime: Runtime,
        cost: CostModel,
        *,
        chunking: Chunking = ONE_CHUNK,
        batch_tokens: int | None = None,
        on_inference: OnInference | None = None,
        served_by: Candidate = ("", ""),
    ) -> None:
        manifest = bundle.manifest
        self.name = bundle.name
        self.served_by = served_by
        self.fingerprint = bundle.fingerprint
        self.dimension = bundle.dimension
        self.max_tokens = bundle.max_tokens
        self._runtime = runtime
        self._cost = cost
        self._pad_id = manifest.pad_id
        if batch_tokens is None:
            batch_tokens = _BATCH_TOKENS if cost.token > _LOOKED_UP_S else _LOOKED_UP_TOKENS
        self._batch_tokens = batch_tokens
        self._on_inference = on_inference
        self._turns: AbstractContextManager[object] = nullcontext()
        self._documents = Tokenizer(
            bundle.tokenizer_file,
            max_tokens=bundle.max_tokens,
            max_chunks=chunking.max_chunks,
            overlap=chunking.overlap,
            prompt=manifest.prompts["document"],
            split=chunking.split,
        )
        self._queries = Tokenizer(
            bundle.tokenizer_file,
            max_tokens=bundle.max_tokens,
            prompt=manifest.prompts["query"],
        )

    def shared(self, turns: AbstractContextManager[object], on_inference: OnInference) -> Encoder:
        """The same model for one of several that share it: loaded once, told of apart.

        Args:
            turns: Entered for each call; may be entered by several threads.
            on_inference: told of this one's calls.
        """
        one = copy(self)
        one._turns = turns  # noqa: SLF001 - of the same class
        one._on_inference = on_inference  # noqa: SLF001
        return one

    def encode(self, texts: Sequence[Input]) -> list[Encoded]:
        """The vectors of documents, in the order given.

        Returns:
            One for each text. All vectors are views into one array; copy one to keep it long.
        """
        tokenized = self._documents.encode_batch(texts)
        vectors = self._vectors([chunk for text in tokenized for chunk in text.chunks])
        return _scatter(tokenized, vectors)

    def encode_changed(
        self, texts: Sequence[Input], known: Mapping[bytes, NDArray[np.float32]]
    ) -> Changed:
        """The same, with a call to the model only for chunks whose vectors are not known.

        Args:
            texts: the documents.
            known: vectors of this model, by the hash of the chunk that each was made of.
        """
        tokenized = self._documents.encode_batch(texts)
        chunks = [chunk for text in tokenized for chunk in text.chunks]
        hashes = [chunk.hash for chunk in chunks]
        new = {own: chunk for own, chunk in zip(hashes, chunks, strict=True) if own not in known}
        made = dict(zip(new, self._vectors(list(new.values())), strict=True))
        vectors = np.empty((len(chunks), self.dimension), np.float32)
        for row, own in enumerate(hashes):
            vectors[row] = made[own] if own in made else known[own]
        return Changed(
            _scatter(tokenized, vectors, hashes),
            tokens=sum(chunk.tokens for chunk in new.values()),
            reused=len(chunks) - len(new),
        )

    def encode_query(self, text: str) -> NDArray[np.float32]:
        """The vector of a query: float32 [dimension], of unit length."""
        vector: NDArray[np.float32] = self.encode_queries([text])[0]
        return vector

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of several queries, embedded together: float32 [texts, dimension]."""
        return self._vectors([self._queries.encode(text).chunks[0] for text in texts])

    def _vectors(self, chunks: list[Chunk]) -> NDArray[np.float32]:
        """float32 [chunks, dimension], in the order given."""
        vectors = np.empty((len(chunks), self.dimension), dtype=np.float32)
        order = sorted(range(len(chunks)), key=lambda index: chunks[index].tokens)
        lengths = [max(chunks[index].tokens, 1) for index in order]
        for group in cut(lengths, self._cost, self._batch_tokens):
            rows = order[group]
            vectors[rows] = self._call([chunks[row].ids for row in rows])
        return vectors

    def _call(self, rows: list[list[int]]) -> NDArray[np.float32]:
        """One call to the model: float32 [rows, dimension]."""
        input_ids, attention_mask = pad(rows, self._pad_id)
        with self._turns:
            began = time.perf_counter()
            vectors = self._runtime.run(input_ids, attention_mask)
            took = time.perf_counter() - began
        if self._on_inference is not None:
            tokens = sum(len(row) for row in rows)
            self._on_inference(len(rows), tokens, input_ids.size, took)
        return vectors


def load_encoder(
    source: ModelSource,
    *,
    runtime: str = "auto",
    precision: str = "auto",
    least_agreement: float = LEAST_AGREEMENT,
    chunking: Chunking = ONE_CHUNK,
    batch_tokens: int | None = None,
    on_inference: OnInference | None = None,
) -> Encoder:
    """Opens (or builds) a model's bundle, and loads it into the runtime that serves it best.

    Args:
        source: which model.
        runtime: `auto`, `onnxruntime` or `openvino`.
        precision: `auto`, `fp32`, `bf16` or `int8`.
        least_agreement: with fp32, below which `auto` takes nothing.
        chunking: how a long document is cut.
        batch_tokens: the most padded tokens of one call, as for `Encoder`.
        on_inference: told of each call: rows, tokens without and with padding, wall seconds.

    Raises:
        ModelError: no such model, or no such runtime or precision on this machine.
        UsageError: limits that leave no room for text.
    """
    bundle = open_bundle(source)
    choice = choose(bundle, runtime, precision, least_agreement)
    candidate = (choice.runtime, choice.precision)
    return Encoder(
        bundle.at(choice.precision),
        open_runtime(bundle, candidate),
        choice.cost,
        chunking=chunking,
        batch_tokens=batch_tokens,
        on_inference=on_inference,
        served_by=candidate,
    )


def describe(
    source: ModelSource,
    *,
    runtime: str = "auto",
    precision: str = "auto",
    least_agreement: float = LEAST_AGREEMENT,
) -> dict[str, Any]:
    """A model as it runs on this machine, ready for JSON.

    Raises:
        ModelError: as `load_encoder`.
    """
    bundle = open_bundle(source)
    choice: Choice = choose(bundle, runtime, precision, least_agreement)
    int8 = bundle.int8() if bundle.has_int8 else None
    return {
        "name": bundle.name,
        "path": str(bundle.path),
        "onnx_file": str(bundle.onnx_file),
        "tokenizer_file": str(bundle.tokenizer_file),
        "source": bundle.manifest.source,
        "dimension": bundle.dimension,
        "max_tokens": bundle.max_tokens,
        "pooling": bundle.manifest.pooling,
        "dense": list(bundle.manifest.dense),
        "prompts": dict(bundle.manifest.prompts),
        "opset": bundle.manifest.opset,
        "int8_file": None if int8 is None else str(int8.onnx_file),
        "int8": None if int8 is None else int8.manifest.quantized,
        "fingerprint": bundle.at(choice.precision).fingerprint,
        "runtime": choice.runtime,
        "precision": choice.precision,
        "reason": choice.reason,
        "refused": choice.refused,
        "figures": choice.figures,
    }


def _scatter(
    tokenized: Sequence[Tokenized], vectors: NDArray[np.float32], hashes: Sequence[bytes] = ()
) -> list[Encoded]:
    """Gives each text the rows of its chunks."""
    encoded = []
    row = 0
    for text in tokenized:
        counts = tuple(chunk.tokens for chunk in text.chunks)
        end = row + len(counts)
        encoded.append(
            Encoded(
                vectors=vectors[row:end],
                spans=tuple((chunk.start, chunk.end) for chunk in text.chunks),
                chunk_tokens=counts,
                tokens=sum(counts),
                truncated=text.truncated,
                hashes=tuple(hashes[row:end]),
            )
        )
        row = end
    return encoded
