"""Lines of the log that may repeat: the first at once, then at most one a minute."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

__all__ = ["EVERY_S", "LimitedLog"]

EVERY_S: Final = 60.0
"""How often a line is repeated at most, in seconds."""


@dataclass
class _Told:
    at: float
    left_out: int = 0


class LimitedLog:
    """Writes each kind of line at once, and again no sooner than a minute later.

    A line that comes after others were left out says how many, as `left_out`.

    Args:
        log: Where to.
        every_s: How often a line is repeated at most, in seconds.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        log: FilteringBoundLogger,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._every_s = every_s
        self._clock = clock
        self._lock = threading.Lock()
        self._told: dict[tuple[str, str], _Told] = {}

    def info(self, event: str, per: str = "", **fields: Any) -> None:  # noqa: ANN401 - as structlog
        """Tell what happened.

        Args:
            event: What.
            per: What else tells two kinds of line apart; of these there must be few.
            fields: What the line has beside it.
        """
        left_out = self._due(event, per)
        if left_out is not None:
            self._log.info(event, **fields, **left_out)

    def warning(self, event: str, per: str = "", **fields: Any) -> None:  # noqa: ANN401
        """The same as a warning."""
        left_out = self._due(event, per)
        if left_out is not None:
            self._log.warning(event, **fields, **left_out)

    def _due(self, event: str, per: str) -> dict[str, int] | None:
        """How many were left out before this one; None where this one is left out."""
        now = self._clock()
        with self._lock:
            told = self._told.get((event, per))
            if told is not None and now - told.at < self._every_s:
                told.left_out += 1
                return None
            self._told[event, per] = _Told(now)
        return {"left_out": told.left_out} if told is not None and told.left_out else {}
