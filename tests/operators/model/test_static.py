"""Token vectors whose sum stands for a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.model import static
from operators.model.static import Bags

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOKENS = 12
WIDTH = 5
TEXTS = st.lists(
    st.lists(st.integers(0, TOKENS - 1), min_size=1, max_size=9), min_size=1, max_size=20
)


def matrix(texts: list[list[int]]) -> NDArray[np.float64]:
    """What turns token vectors into means over texts: float64 [texts, TOKENS]."""
    made = np.zeros((len(texts), TOKENS))
    for row, text in enumerate(texts):
        for token in text:
            made[row, token] += 1 / len(text)
    return made


def noise(rows: int, seed: int = 0) -> NDArray[np.float32]:
    """Vectors of no meaning: float32 [rows, WIDTH]."""
    dice = np.random.default_rng(seed)
    return dice.normal(size=(rows, WIDTH)).astype(np.float32)


@given(TEXTS)
def test_bags_are_the_matrix_and_its_transpose(texts: list[list[int]]) -> None:
    """Means over texts, and the way back, are what the dense matrix gives."""
    bags, dense = Bags.of(texts), matrix(texts)
    np.testing.assert_allclose(bags.of_texts(noise(TOKENS)), dense @ noise(TOKENS), atol=1e-5)
    back = np.zeros((TOKENS, WIDTH))
    back[bags.tokens] = bags.transposed_times(noise(len(texts)))
    np.testing.assert_allclose(back, dense.T @ noise(len(texts)), atol=1e-5)


@given(TEXTS)
def test_levelled_texts_have_their_lengths(texts: list[list[int]]) -> None:
    """Levelled, each text's vector has the length wanted, and the direction that it had."""
    bags, table = Bags.of(texts), noise(TOKENS)
    lengths = np.linspace(0.5, 2, len(texts), dtype=np.float32)
    found = bags.levelled(table, lengths).of_texts(table)
    wanted = static.unit(bags.of_texts(table)) * lengths[:, None]
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("floats", [1, 1 << 24])
def test_fit_solves_the_least_squares(monkeypatch: pytest.MonkeyPatch, floats: int) -> None:
    """The fit is the solution of the penalised problem, whether by single columns or by all."""
    monkeypatch.setattr(static, "_MOST_FLOATS", floats)
    dice = np.random.default_rng(1)
    texts = [dice.integers(0, TOKENS, size).tolist() for size in dice.integers(1, 9, 60)]
    start, wanted, pull = noise(TOKENS), noise(len(texts), 2), 0.1
    fitted = static.fit(start, Bags.of(texts), wanted, pull)
    dense = matrix(texts)
    moved = np.linalg.solve(
        dense.T @ dense + pull * np.eye(TOKENS), dense.T @ (wanted - dense @ start)
    )
    np.testing.assert_allclose(fitted, start + moved, atol=1e-4)


def test_a_token_that_no_text_has_stays() -> None:
    """What the texts say nothing about is not moved."""
    fitted = static.fit(noise(TOKENS), Bags.of([[0, 1], [1, 2]]), noise(2, 3), 0.1)
    np.testing.assert_array_equal(fitted[3:], noise(TOKENS)[3:])
    assert (fitted[:3] != noise(TOKENS)[:3]).all()


def test_scaling_finds_the_length() -> None:
    """Vectors that point right but are too short get the length that texts need."""
    bags = Bags.of([[0, 1], [2], [3, 4, 5]])
    wanted = bags.of_texts(noise(TOKENS))
    found = static.scaled(noise(TOKENS) * np.float32(0.01), bags, wanted)
    np.testing.assert_allclose(found, noise(TOKENS), rtol=1e-4)


def test_principal_directions() -> None:
    """Directions are orthonormal, the strongest first, and the same for the same vectors."""
    vectors = noise(200) * np.array([1, 9, 3, 1, 1], dtype=np.float32)
    found = static.principal(vectors, 2)
    np.testing.assert_allclose(found.T @ found, np.eye(2), atol=1e-5)
    assert np.abs(found).argmax(axis=0).tolist() == [1, 2]
    assert found.max(axis=0) == pytest.approx(np.abs(found).max(axis=0))
    whole = static.principal(vectors, WIDTH)
    np.testing.assert_allclose(vectors @ whole @ whole.T, vectors, atol=1e-4)


def test_rare_tokens_count_more() -> None:
    """Weights rise with the rank, from near 0 to near 1."""
    weights = static.zipf_weights(np.arange(1, 30_001))
    assert (np.diff(weights) >= 0).all()
    assert 0 < weights[0] < 0.01
    assert 0.9 < weights[-1] < 1


def test_neighbours_shared() -> None:
    """The same vectors share all neighbours, a turned copy too, and unlike ones few."""
    truth = static.unit(noise(600))
    turned = truth @ np.linalg.qr(noise(WIDTH))[0]
    assert static.neighbours_shared(truth, truth) == 1
    assert static.neighbours_shared(turned, truth) > 0.99
    assert static.neighbours_shared(static.unit(noise(600, 9)), truth) < 0.1
    assert static.neighbours_shared(truth[:3], truth[:3]) == 1
