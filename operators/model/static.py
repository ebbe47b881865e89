"""Token vectors whose sum stands for a text: the numbers behind a static bundle.

A token's vector is what the teacher makes of that token alone, reduced to its principal
components and weighted by how rare the token is (as in SIF: Arora, Liang and Ma, "A Simple but
Tough-to-Beat Baseline for Sentence Embeddings", 2017). Given texts, the vectors are then moved to
where the mean over a text comes nearest to the teacher's vector of that text: a least-squares
problem, with a pull back to where they began so that a token seen rarely moves little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

__all__ = ["Bags", "fit", "neighbours_shared", "principal", "scaled", "unit", "zipf_weights"]

# SIF's constant: a token whose share of all tokens is this large counts half.
_HALF: Final = 1e-3
_STEPS: Final = 40
# Floats of one intermediate array, so that many texts take no more memory than some.
_MOST_FLOATS: Final = 1 << 24
_ROWS: Final = 512
_NEIGHBOURS: Final = 10


def zipf_weights(size: int) -> Floats:
    """How much a token counts by its rank, where a vocabulary lists frequent tokens first.

    By Zipf's law the token of rank r makes up 1 / (r H) of all tokens.

    Returns:
        float32 [size], between 0 and 1, rising.
    """
    rank = np.arange(1, size + 1, dtype=np.float64)
    share = 1 / (rank * np.log(size + 1))
    return (_HALF / (_HALF + share)).astype(np.float32)


def principal(vectors: Floats, dimension: int) -> Floats:
    """The directions in which vectors differ most from zero.

    Args:
        vectors: float32 [rows, width].
        dimension: how many; at most width.

    Returns:
        float32 [width, dimension], orthonormal columns, the strongest first. Each one's largest
        element is positive, so the same vectors give the same directions anywhere.
    """
    wide = vectors.astype(np.float64)
    _, directions = np.linalg.eigh(wide.T @ wide)
    directions = directions[:, ::-1][:, :dimension]
    largest = np.abs(directions).argmax(axis=0)
    signs = np.sign(directions[largest, np.arange(directions.shape[1])])
    return (directions * signs).astype(np.float32)


def unit(vectors: Floats) -> Floats:
    """Rows at length 1; a row of zeros stays one."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(length, np.float32(1e-12))


@dataclass(frozen=True, slots=True)
class Bags:
    """The tokens of texts, as the matrix that turns token vectors into means over texts.

    Attributes:
        ids: int64 [tokens], those of one text after another.
        starts: int64 [texts], where each text begins; none is empty.
    """

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[Sequence[int] | NDArray[np.int64]]) -> Bags:
        """Bags of token ids; each text has at least one."""
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        ids = np.concatenate([np.asarray(text, dtype=np.int64) for text in texts])
        return cls(ids, np.cumsum(lengths) - lengths)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Tokens of each text: int64 [texts]."""
        return np.diff(self.starts, append=len(self.ids))

    def take(self, texts: NDArray[np.int64]) -> Bags:
        """The bags of some texts: int64 [some]."""
        ends = self.starts + self.counts
        return Bags.of([self.ids[self.starts[text] : ends[text]] for text in texts])

    def means(self, table: Floats) -> Floats:
        """float32 [vocabulary, columns] to the mean over each text: float32 [texts, columns]."""
        sums = np.add.reduceat(table[self.ids], self.starts, axis=0)
        return sums / self.counts[:, None].astype(np.float32)

    def spread(self, residuals: Floats, size: int) -> Floats:
        """The transpose of `means`: float32 [texts, columns] to float32 [size, columns]."""
        order = np.argsort(self.ids, kind="stable")
        found, first = np.unique(self.ids[order], return_index=True)
        owner = np.repeat(np.arange(len(self.starts)), self.counts)
        shares = residuals / self.counts[:, None].astype(np.float32)
        spread = np.zeros((size, residuals.shape[1]), dtype=np.float32)
        spread[found] = np.add.reduceat(shares[owner[order]], first, axis=0)
        return spread


def scaled(table: Floats, bags: Bags, wanted: Floats) -> Floats:
    """The table at the length at which its means over texts come nearest to what is wanted."""
    means = bags.means(table)
    return table * np.float32((means * wanted).sum() / max(float((means * means).sum()), 1e-12))


def fit(
    table: Floats,
    bags: Bags,
    wanted: Floats,
    pull: float,
    advance: Callable[[int], None] = lambda _: None,
) -> Floats:
    """Moves token vectors so that their means over texts come near to the teacher's vectors.

    Least squares with a penalty of `pull` on each vector's squared way from where it began, by
    conjugate gradients, some columns at a time.

    Args:
        table: float32 [vocabulary, dimension], where the vectors begin.
        bags: the texts' tokens.
        wanted: float32 [texts, dimension], the teacher's.
        pull: above 0; the larger, the less they move.
        advance: told how many columns were done.

    Returns:
        float32 [vocabulary, dimension].
    """
    fitted = table.copy()
    width = max(1, _MOST_FLOATS // max(1, len(bags.ids)))
    for first in range(0, table.shape[1], width):
        part = slice(first, first + width)
        residuals = wanted[:, part] - bags.means(table[:, part])
        moved = _solve(bags, bags.spread(residuals, len(table)), pull)
        fitted[:, part] += moved
        advance(moved.shape[1])
    return fitted


def _solve(bags: Bags, right: Floats, pull: float) -> Floats:
    """Solves (M'M + pull) x = right, M being the matrix of `bags`; each column by itself."""
    x = np.zeros_like(right)
    residual = right
    direction = right
    square = (residual * residual).sum(axis=0)
    for _ in range(_STEPS):
        image = bags.spread(bags.means(direction), len(right)) + pull * direction
        step = square / np.maximum((direction * image).sum(axis=0), 1e-30)
        x = x + step * direction
        residual = residual - step * image
        before, square = square, (residual * residual).sum(axis=0)
        direction = residual + square / np.maximum(before, 1e-30) * direction
    return x


def neighbours_shared(vectors: Floats, truth: Floats) -> float:
    """The mean share of each row's 10 nearest others that are the same in both, by cosine.

    Args:
        vectors: float32 [rows, any], rows of unit length.
        truth: float32 [rows, any], likewise.
    """
    count = min(_NEIGHBOURS, len(vectors) - 1)
    shared = 0
    for first in range(0, len(vectors), _ROWS):
        near = [_nearest(own, first, count) for own in (vectors, truth)]
        shared += sum(len(set(a) & set(b)) for a, b in zip(*near, strict=True))
    return shared / max(1, count * len(vectors))


def _nearest(vectors: Floats, first: int, count: int) -> list[list[int]]:
    """The `count` nearest others of some rows."""
    likeness = vectors[first : first + _ROWS] @ vectors.T
    own = np.arange(len(likeness))
    likeness[own, first + own] = -2.0
    nearest: list[list[int]] = np.argpartition(-likeness, count - 1, axis=1)[:, :count].tolist()
    return nearest
