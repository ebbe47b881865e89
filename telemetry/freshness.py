"""Whether records reach the sinks within the freshness target, and a word when they don't."""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Final

import numpy as np
import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["FreshnessWatch", "Verdict"]

log = structlog.get_logger(__name__)

SPAN_S: Final = 10.0
"""Over how long records are counted before the target is called missed or kept, in seconds."""

MISSED_SHARE: Final = 0.5
KEPT_SHARE: Final = 0.05
"""The shares of late records above which the target is missed, and at most which it is kept
again: apart, so that a flow at the edge does not change its mind all the time."""


@dataclass(slots=True)
class _Span:
    """What one sink committed since a moment."""

    since: float
    records: int = 0
    late: int = 0
    worst_ms: float = 0.0
    missed: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What some commit's records say.

    Attributes:
        late: How many of them were late.
        missed: Whether the target is missed, as of the last span that ended.
    """

    late: int
    missed: bool


class FreshnessWatch:
    """Counts late records for each sink; safe for several threads.

    Args:
        limits_ms: How old a record may be when a sink has committed it, by sink, in milliseconds.
        clock: Seconds that never go back.
        pipeline: Whose they are, for the log, where there are several.
    """

    def __init__(
        self,
        limits_ms: dict[str, float],
        clock: Callable[[], float] = time.monotonic,
        pipeline: str = "",
    ) -> None:
        self._limits = limits_ms
        self._named = {"pipeline": pipeline} if pipeline else {}
        self._clock = clock
        self._lock = Lock()
        self._spans = {sink: _Span(clock()) for sink in limits_ms}

    def judge(self, sink: str, ages_ms: NDArray[np.float64]) -> Verdict:
        """Take note of the ages of the records that a sink has just committed."""
        late = int(np.count_nonzero(ages_ms > self._limits[sink]))
        with self._lock:
            span = self._spans[sink]
            span.records += len(ages_ms)
            span.late += late
            span.worst_ms = max(span.worst_ms, float(ages_ms.max(initial=0.0)))
            if self._clock() - span.since >= SPAN_S:
                self._spans[sink] = _Span(self._clock(), missed=self._settled(sink, span))
            return Verdict(late, self._spans[sink].missed)

    def _settled(self, sink: str, span: _Span) -> bool:
        """Whether the target is missed after this span; says so when that has changed."""
        share = span.late / span.records if span.records else 0.0
        figures = {
            "stage": sink,
            "target_ms": self._limits[sink],
            "late_share": round(share, 3),
            "worst_ms": round(span.worst_ms),
            **self._named,
        }
        if not span.missed and share > MISSED_SHARE:
            log.warning("freshness target missed", **figures)
            return True
        if span.missed and share <= KEPT_SHARE:
            log.info("freshness target kept", **figures)
            return False
        return span.missed
