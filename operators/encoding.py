"""What an encoder gives for one text: plain data, free of any runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Encoded"]


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
