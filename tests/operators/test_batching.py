"""Where batches are cut."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.batching import CostModel, cut

if TYPE_CHECKING:
    from collections.abc import Sequence

LENGTHS = st.lists(st.integers(1, 60), max_size=40).map(sorted)
COSTS = st.builds(CostModel, st.floats(0, 0.05), st.floats(1e-5, 0.01))
LIMITS = st.sampled_from([1, 20, 64, 512, 10_000])
MEASURED = CostModel(0.002, 0.000114)


def total(lengths: Sequence[int], slices: Sequence[slice], cost: CostModel) -> float:
    """What the calls cost together."""
    return sum(cost.seconds(own.stop - own.start, lengths[own.stop - 1]) for own in slices)


def allowed(lengths: Sequence[int], slices: Sequence[slice], limit: int) -> bool:
    """Whether each call is within the limit, or a single text."""
    sizes = [(own.stop - own.start, lengths[own.stop - 1]) for own in slices]
    return all(rows == 1 or rows * longest <= limit for rows, longest in sizes)


@given(LENGTHS, COSTS, LIMITS)
def test_covers_all_once_in_order(lengths: list[int], cost: CostModel, limit: int) -> None:
    """Every text is in one call, in order, and each call keeps the limit."""
    slices = cut(lengths, cost, limit)
    covered = [index for own in slices for index in range(len(lengths))[own]]
    assert covered == list(range(len(lengths)))
    assert allowed(lengths, slices, limit)


@given(LENGTHS, COSTS, LIMITS)
def test_no_fixed_size_is_cheaper(lengths: list[int], cost: CostModel, limit: int) -> None:
    """No cut into calls of one size costs less."""
    best = total(lengths, cut(lengths, cost, limit), cost)
    for size in range(1, len(lengths) + 1):
        fixed = [
            slice(start, min(start + size, len(lengths))) for start in range(0, len(lengths), size)
        ]
        if allowed(lengths, fixed, limit):
            assert best <= total(lengths, fixed, cost) * (1 + 1e-9)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9).map(sorted), COSTS, LIMITS)
def test_equals_brute_force(lengths: list[int], cost: CostModel, limit: int) -> None:
    """The cut costs as much as the cheapest of all possible ones."""
    count = len(lengths)
    cheapest = min(
        total(lengths, slices, cost)
        for inner in range(count)
        for places in itertools.combinations(range(1, count), inner)
        if allowed(
            lengths,
            slices := [slice(*ends) for ends in itertools.pairwise((0, *places, count))],
            limit,
        )
    )
    assert total(lengths, cut(lengths, cost, limit), cost) == pytest.approx(cheapest)


def test_nothing_makes_no_call() -> None:
    """No texts, no calls."""
    assert cut([], MEASURED, 512) == []


def test_text_over_the_limit_goes_alone() -> None:
    """A text longer than the limit makes a call of its own, and the search ends."""
    assert cut([3, 900, 901], MEASURED, 512) == [slice(0, 1), slice(1, 2), slice(2, 3)]


def test_free_calls_waste_no_padding() -> None:
    """Where calls cost nothing, unlike lengths are never padded to each other."""
    lengths = [1, 1, 5, 5, 5, 9]
    slices = cut(lengths, CostModel(0.0, 0.001), 512)
    assert all(len(set(lengths[own])) == 1 for own in slices)


def test_unsorted_lengths_and_bad_limits_are_refused() -> None:
    """What the search can't be right about is refused."""
    with pytest.raises(ValueError, match="ascending"):
        cut([2, 1], MEASURED, 512)
    with pytest.raises(ValueError, match="max_tokens_per_call: 0"):
        cut([1], MEASURED, 0)


@pytest.mark.parametrize("count", [8, 64, 500])
def test_cutting_costs_under_a_percent(count: int) -> None:
    """The search takes less than 1 % of the time that the calls take, at the faster runtime."""
    lengths = sorted(5 + index * 7 % 40 for index in range(count))
    began = time.process_time()
    for _ in range(10):
        slices = cut(lengths, MEASURED, 512)
    spent = (time.process_time() - began) / 10
    assert spent < 0.01 * total(lengths, slices, MEASURED)
