"""What an encoder gives for one text: plain data, free of any runtime."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = ["HASH_BYTES", "Changed", "Encoded", "Input", "Packed", "Prefixed", "packed", "unpacked"]


HASH_BYTES: Final = 16
"""Of the hash of a chunk's tokens."""


class Prefixed(NamedTuple):
    """A text with what is put before each of its chunks, for the model only.

    Attributes:
        prefix: such as the document's title; may be empty.
        text: the text.
    """

    prefix: str
    text: str


Input = str | Prefixed
"""What is encoded: a text, with a prefix where the settings name one."""


class Encoded(NamedTuple):
    """The vectors of one text, a row for each of its chunks.

    Attributes:
        vectors: float32 [chunks, dimension], C-contiguous, each row of unit length. A view into
            the array of the whole `encode` call, never written to again.
        spans: each chunk's range of characters, `text[start:end]`.
        chunk_tokens: each chunk's number of tokens, with the special ones, prompt and prefix.
        tokens: the number of tokens of all chunks together.
        truncated: whether the text goes on after its last chunk.
        hashes: of each chunk's tokens; none unless vectors are to be used again.
    """

    vectors: NDArray[np.float32]
    spans: tuple[tuple[int, int], ...]
    chunk_tokens: tuple[int, ...]
    tokens: int
    truncated: bool
    hashes: tuple[bytes, ...] = ()


class Changed(NamedTuple):
    """Some encodings, and what they cost.

    Attributes:
        encoded: One for each text.
        tokens: Of the chunks that went into the model.
        reused: How many chunks' vectors were known.
    """

    encoded: list[Encoded]
    tokens: int
    reused: int


class Packed(NamedTuple):
    """Some encodings, None among them, in the form that is cheapest to hand to another process.

    Attributes:
        vectors: float32 [chunks, dimension], of all encodings that there are.
        plain: Everything else of them, as columns in the order of `Encoded`.
        missing: The indices of those that are None, rising.
    """

    vectors: NDArray[np.float32]
    plain: tuple[Sequence[object], ...]
    missing: Sequence[int]


def packed(encodings: Sequence[Encoded | None]) -> Packed | None:
    """Encodings as columns; None where there are none."""
    present = [one for one in encodings if one is not None]
    if not present:
        return None
    vectors, *plain = zip(*present, strict=True)
    missing: Sequence[int] = ()
    if len(present) < len(encodings):
        missing = [index for index, one in enumerate(encodings) if one is None]
    return Packed(np.concatenate(vectors), tuple(plain), missing)


def unpacked(pack: Packed | None, count: int) -> list[Encoded | None]:
    """The encodings again, so many; their vectors are views into one array."""
    if pack is None:
        return [None] * count
    vectors = _split(pack.vectors, list(map(len, pack.plain[0])))  # type: ignore[arg-type]
    found: list[Encoded | None] = list(map(Encoded._make, zip(vectors, *pack.plain, strict=True)))
    for index in pack.missing:
        found.insert(index, None)
    return found


def _split(vectors: NDArray[np.float32], chunks: Sequence[int]) -> Iterable[NDArray[np.float32]]:
    """Each encoding's own vectors, by how many it has."""
    if len(chunks) == len(vectors):
        return vectors[:, None]
    ends = list(accumulate(chunks))
    return (vectors[end - count : end] for end, count in zip(ends, chunks, strict=True))
