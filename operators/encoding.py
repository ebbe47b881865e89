"""What an encoder gives for one text: plain data, free of any runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Encoded", "Packed", "packed", "unpacked"]

Packed = tuple[tuple[Any, ...], "NDArray[np.float32] | None"]
"""Encodings as plain data and one array of all their vectors."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """The vectors of one text, a row for each of its chunks.

    Attributes:
        vectors: float32 [chunks, dimension], C-contiguous, each row of unit length. A view into
            the array of the whole `encode` call, never written to again.
        spans: each chunk's range of characters, `text[start:end]`.
        chunk_tokens: each chunk's number of tokens, special ones and the prompt included.
        tokens: the number of tokens of all chunks together.
        truncated: whether the text goes on after its last chunk.
    """

    vectors: NDArray[np.float32]
    spans: tuple[tuple[int, int], ...]
    chunk_tokens: tuple[int, ...]
    tokens: int
    truncated: bool


def packed(encodings: Sequence[Encoded | None]) -> Packed:
    """Encodings in the form that is cheapest to hand to another process."""
    present = [e for e in encodings if e is not None]
    vectors = np.concatenate([e.vectors for e in present]) if present else None
    plain = tuple(
        None if e is None else (e.spans, e.chunk_tokens, e.tokens, e.truncated) for e in encodings
    )
    return plain, vectors


def unpacked(pack: Packed) -> list[Encoded | None]:
    """The encodings again; their vectors are views into one array."""
    plain, vectors = pack
    found: list[Encoded | None] = []
    row = 0
    for fields in plain:
        if fields is None or vectors is None:
            found.append(None)
            continue
        spans, chunk_tokens, tokens, truncated = fields
        last = row + len(chunk_tokens)
        found.append(Encoded(vectors[row:last], spans, chunk_tokens, tokens, truncated))
        row = last
    return found
