"""Token vectors whose sum stands for a text: the numbers behind a static bundle.

A token's vector is what the teacher makes of that token alone, reduced to its principal
components and weighted by how rare the token is (as in SIF: Arora, Liang and Ma, "A Simple but
Tough-to-Beat Baseline for Sentence Embeddings", 2017). Given texts, the vectors are then moved to
where a text's comes nearest to the teacher's vector of that text: a least-squares problem, with a
pull back to where they began so that a token seen rarely moves little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

__all__ = ["Bags", "fit", "neighbours_shared", "principal", "scaled", "unit", "zipf_weights"]

# SIF's constant: a token whose share of all tokens is this large counts half. From 1e-4 to 3e-4
# gave the most neighbours in common with all-MiniLM-L6-v2, 1e-3 and 5e-5 fewer.
_HALF: Final = 2e-4
_STEPS: Final = 12
# Floats of one intermediate array, so that many texts take no more memory than some.
_MOST_FLOATS: Final = 1 << 24
_ROWS: Final = 512
_NEIGHBOURS: Final = 10


def zipf_weights(ranks: NDArray[np.int64]) -> Floats:
    """How much a token counts by its rank among all, the most frequent one having rank 1.

    By Zipf's law the token of rank r makes up 1 / (r H) of all tokens, H being near the logarithm
    of their number. SIF weighs a token of share p by a / (a + p).

    Args:
        ranks: int64 [tokens], from 1.

    Returns:
        float32 [tokens], between 0 and 1, the larger the rarer.
    """
    share = 1 / (ranks * np.log(int(ranks.max(initial=1)) + 1))
    weights: Floats = (_HALF / (_HALF + share)).astype(np.float32)
    return weights


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
    axes: Floats = (directions * signs).astype(np.float32)
    return axes


def unit(vectors: Floats) -> Floats:
    """Rows at length 1; a row of zeros stays one."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled_rows: Floats = vectors / np.maximum(length, np.float32(1e-12))
    return scaled_rows


class Bags:
    """The tokens of texts, as the matrix that turns token vectors into those of texts.

    A text's row has its scale for each token, as often as the token comes. The matrix has a column
    for each token that some text has; `tokens` says which.

    Args:
        ids: int64 [tokens], those of one text after another.
        starts: int64 [texts], where each text begins; none is empty.
        scale: float32 [texts], what the sum of a text's vectors is multiplied by.

    Attributes:
        tokens: int64 [columns], the different tokens, ascending.
        scale: float32 [texts, 1].
    """

    def __init__(self, ids: NDArray[np.int64], starts: NDArray[np.int64], scale: Floats) -> None:
        self._ids = ids
        self._starts = starts
        self.scale = scale[:, None]
        self.tokens, self._columns = np.unique(ids, return_inverse=True)
        owner = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(ids)))
        # The same tokens side by side, each with the text that it is from.
        order = np.argsort(self._columns, kind="stable")
        self._owner = owner[order]
        self._firsts = np.searchsorted(self._columns[order], np.arange(len(self.tokens)))

    def __len__(self) -> int:
        return len(self._ids)

    @classmethod
    def of(cls, texts: Sequence[Sequence[int] | NDArray[np.int64]]) -> Bags:
        """Bags of token ids, at least one a text; each text's vector is the mean of its tokens'."""
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        ids = np.concatenate([np.asarray(text, dtype=np.int64) for text in texts])
        return cls(ids, np.cumsum(lengths) - lengths, (1 / lengths).astype(np.float32))

    def levelled(self, table: Floats, lengths: Floats) -> Bags:
        """The same texts, each scaled to where its vector by a table has a length of its own.

        Only the direction of a text's vector counts in the end. Without this, a text of many
        common words, whose vectors are short, would draw them out to reach the length wanted.

        Args:
            table: float32 [vocabulary, dimension].
            lengths: float32 [texts].
        """
        found = np.linalg.norm(self.of_texts(table), axis=1)
        scale = self.scale[:, 0] * lengths / np.maximum(found, 1e-3 * lengths)
        return Bags(self._ids, self._starts, scale.astype(np.float32))

    def of_texts(self, table: Floats) -> Floats:
        """float32 [vocabulary, dimension] of tokens to float32 [texts, dimension]."""
        return self.times(table[self.tokens])

    def times(self, columns: Floats) -> Floats:
        """The matrix times float32 [columns, any]: float32 [texts, any]."""
        sums: Floats = np.add.reduceat(columns[self._columns], self._starts, axis=0)
        return sums * self.scale

    def transposed_times(self, rows: Floats) -> Floats:
        """Its transpose times float32 [texts, any]: float32 [columns, any]."""
        shares = (rows * self.scale)[self._owner]
        spread: Floats = np.add.reduceat(shares, self._firsts, axis=0)
        return spread


def scaled(table: Floats, bags: Bags, wanted: Floats) -> Floats:
    """The table at the length at which it comes nearest to what is wanted of texts."""
    found = bags.of_texts(table)
    return table * np.float32((found * wanted).sum() / max(float((found * found).sum()), 1e-12))


def fit(table: Floats, bags: Bags, wanted: Floats, pull: float) -> Floats:
    """Moves token vectors so that texts' vectors come near to the teacher's.

    Least squares with a penalty of `pull` on each token vector's squared way from where it began,
    by conjugate gradients, some columns at a time.

    Args:
        table: float32 [vocabulary, dimension], where the vectors begin.
        bags: the texts' tokens.
        wanted: float32 [texts, dimension], the teacher's.
        pull: above 0; the larger, the less they move.

    Returns:
        float32 [vocabulary, dimension].
    """
    fitted = table.copy()
    width = max(1, _MOST_FLOATS // max(1, len(bags)))
    for first in range(0, table.shape[1], width):
        part = slice(first, first + width)
        began = table[bags.tokens, part]
        residuals = wanted[:, part] - bags.times(began)
        fitted[bags.tokens, part] = began + _solve(bags, bags.transposed_times(residuals), pull)
    return fitted


def _solve(bags: Bags, right: Floats, pull: float) -> Floats:
    """Solves (M'M + pull) x = right, M being the matrix of `bags`; each column by itself.

    Conjugate gradients, preconditioned by the diagonal but for repetitions in a text: tokens
    differ a thousandfold in how often they come.
    """
    diagonal = bags.transposed_times(bags.scale) + np.float32(pull)
    x = np.zeros_like(right)
    residual = right
    direction = right / diagonal
    square = (residual * direction).sum(axis=0)
    for _ in range(_STEPS):
        image = bags.transposed_times(bags.times(direction)) + pull * direction
        step = square / np.maximum((direction * image).sum(axis=0), 1e-30)
        x = x + step * direction
        residual = residual - step * image
        turned = residual / diagonal
        before, square = square, (residual * turned).sum(axis=0)
        direction = turned + square / np.maximum(before, 1e-30) * direction
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
