"""When the table's next commit begins: often while commits are cheap, never for too much of a core.

A commit costs much the same for one row as for hundreds, so how often there is one decides both
how fresh the table is and what it takes from the model.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Pace"]

BACKLOG_S: Final = 0.5
"""The pace, at least, of a flow that works off a backlog: it gains by large commits, and has no row
to show sooner."""

_MEMORY: Final = 0.2
"""The weight of the newest commit in what commits are taken to cost."""


class Pace:
    """How long to rest between two commits.

    Args:
        target_ms: The time from the beginning of one commit to that of the next, while that costs
            no more than `share`: a row waits half of it on average for its commit to begin.
        share: The most of one core that commits and upkeep may take before they become rarer.
        longest_ms: The bound to which they may.
        lane_rows: As many rows of one lane as may wait: with more, it would soon have all in
            flight that it may, and nothing to do until they are committed.

    Attributes:
        lane_rows: As given.
    """

    def __init__(
        self,
        target_ms: float = 40.0,
        share: float = 0.3,
        longest_ms: float = 500.0,
        lane_rows: int = 1000,
    ) -> None:
        self.lane_rows = lane_rows
        self._target = target_ms / 1000
        self._share = share
        self._longest = longest_ms / 1000
        self._cost: float | None = None

    def spent(self, cpu_s: float) -> None:
        """The last commit took so many CPU-seconds, with the upkeep before it."""
        # A costly first one, which also opens files, is not taken for the rule.
        held = min(cpu_s, self._target * self._share) if self._cost is None else self._cost
        self._cost = held + _MEMORY * (cpu_s - held)

    def interval(self, *, behind: bool = False) -> float:
        """Seconds from the beginning of one commit to that of the next.

        Args:
            behind: The flow works off a backlog.
        """
        paced = min(max(self._target, (self._cost or 0.0) / self._share), self._longest)
        return max(paced, BACKLOG_S) if behind else paced

    def rest(self, took_s: float, *, behind: bool = False) -> float:
        """Seconds to rest after a commit that took `took_s` from beginning to end."""
        return max(0.0, self.interval(behind=behind) - took_s)
