"""Where to cut length-sorted texts into calls to the model.

A call pads its texts to the longest, so one call with many unlike texts wastes work on padding,
and many small calls waste each call's fixed cost. Both are known from measurement, so the
cheapest cut is found rather than guessed.

The search is a shortest path over cut positions: the best cost up to position j is the least, over
the last call's first text i, of best[i] + c0 + c1 (j - i) length[j - 1]. For sorted lengths, once a
later i is the better start of the last call, it stays so for every longer text after it. Hence each
i rules one contiguous stretch of j, found by bisection, and the whole search is O(n log n).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CostModel", "cut"]


@dataclass(frozen=True, slots=True)
class CostModel:
    """What one call to the model costs: `call` + `token` x rows x longest.

    Attributes:
        call: CPU-seconds of a call, whatever its size (c0).
        token: CPU-seconds of one padded token (c1).
    """

    call: float
    token: float

    def seconds(self, rows: int, longest: int) -> float:
        """CPU-seconds of one call with `rows` texts padded to `longest` tokens."""
        return self.call + self.token * rows * longest


def cut(lengths: Sequence[int], cost: CostModel, max_tokens_per_call: int) -> list[slice]:
    """The cheapest way to cut sorted texts into calls.

    Args:
        lengths: tokens of each text, ascending.
        cost: what a call costs.
        max_tokens_per_call: the most padded tokens (rows x longest) of one call. A text that is
            longer than this makes a call of its own.

    Returns:
        Slices that cover `lengths` once, in order.

    Raises:
        ValueError: `max_tokens_per_call` is below 1, or `lengths` isn't ascending.
    """
    if max_tokens_per_call < 1:
        raise ValueError(f"max_tokens_per_call: {max_tokens_per_call} — must be at least 1")
    if any(left > right for left, right in pairwise(lengths)):
        raise ValueError("lengths: must be ascending")
    return _walk_back(_best_starts(lengths, cost, max_tokens_per_call))


def _best_starts(lengths: Sequence[int], cost: CostModel, limit: int) -> list[int]:
    """For each end j in 1..n, at index j - 1, the first text of the cheapest last call."""
    call, token = cost.call, max(cost.token, 1e-12)
    # The earliest start that keeps the call ending at j within the limit; strictly ascending.
    earliest = [
        end - max(1, limit // max(length, 1)) for end, length in enumerate(lengths, start=1)
    ]
    best = [0.0]
    starts: list[int] = []
    rulers, reigns = [0], [0]  # Candidate starts, and the index from which each is the best.
    front = 0
    for index, length in enumerate(lengths):
        while front + 1 < len(rulers) and reigns[front + 1] <= index:
            front += 1
        start = rulers[front]
        best.append(best[start] + call + token * (index + 1 - start) * length)
        starts.append(start)
        _crown(index + 1, rulers, reigns, front, (best, lengths, earliest, token))
    return starts


def _crown(
    new: int,
    rulers: list[int],
    reigns: list[int],
    front: int,
    known: tuple[list[float], Sequence[int], list[int], float],
) -> None:
    """Adds start `new` to the candidates, dropping those that it leaves no stretch to rule."""
    best, lengths, earliest, token = known
    while True:
        old = rulers[-1]
        dearer_by = best[new] - best[old]
        by_cost = bisect_right(lengths, dearer_by / (token * (new - old)))
        by_limit = bisect_right(earliest, old)
        takes_over = max(new, min(by_cost, by_limit))
        if len(rulers) - 1 > front and takes_over <= reigns[-1]:
            rulers.pop()
            reigns.pop()
            continue
        if takes_over < len(lengths):
            rulers.append(new)
            reigns.append(takes_over)
        return


def _walk_back(starts: list[int]) -> list[slice]:
    """The slices of the best path, from the last call back to the first."""
    slices: list[slice] = []
    end = len(starts)
    while end > 0:
        slices.append(slice(starts[end - 1], end))
        end = starts[end - 1]
    return slices[::-1]
