"""Medians and ratios of what was measured, ready for JSON."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.control import AUTO, FP32

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks.rig import Freshness

__all__ = ["FLOW", "Figure", "Result", "Trial", "fresh", "ready", "summed_up"]

FLOW = "flow"


@dataclass(frozen=True, slots=True)
class Trial:
    """One subject, measured once.

    Attributes:
        texts: `short` or `medium`.
        processes: Of the subject.
        subject: A control's name, or `flow`.
        round: Of the run.
        docs: Documents.
        wall_s: Seconds that they took; of the flow, until the topic had the last one.
        cpu_s: CPU-seconds of the subject's processes.
        tokens: Tokens of all documents; 0 where they were not counted.
        table_s: Of the flow, seconds until the table had the last one.
        broker_cpu_s: Of the flow, CPU-seconds of the broker meanwhile.
    """

    texts: str
    processes: int
    subject: str
    round: int
    docs: int
    wall_s: float
    cpu_s: float
    tokens: int = 0
    table_s: float | None = None
    broker_cpu_s: float | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """The median of some rounds, and their extremes."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Figure | None:
        """The figure of some values; None of none."""
        ordered = sorted(values)
        if not ordered:
            return None
        return cls(statistics.median(ordered), ordered[0], ordered[-1])


@dataclass(frozen=True, slots=True)
class Result:
    """One subject over all rounds; ratios are to the control of the same round.

    Attributes:
        texts: `short` or `medium`.
        processes: Of the subject, and of the control that it is compared to.
        subject: A control's name, or `flow`.
        tokens: Mean tokens of a document; None where they were not counted.
        docs_per_s: Documents a second.
        docs_per_s_ratio: The same, in times of the control's.
        docs_per_cpu_s: Documents for each CPU-second of the subject's processes.
        docs_per_cpu_s_ratio: The same, in times of the control's.
        table_docs_per_s: Of the flow, documents a second until the table had the last one.
        around_model: Of the flow, the share of its CPU time beyond what its model takes alone.
        docs_per_broker_cpu_s: Of the flow, documents for each CPU-second of the broker.
    """

    texts: str
    processes: int
    subject: str
    tokens: float | None
    docs_per_s: Figure | None
    docs_per_s_ratio: Figure | None
    docs_per_cpu_s: Figure | None
    docs_per_cpu_s_ratio: Figure | None
    table_docs_per_s: Figure | None
    around_model: Figure | None
    docs_per_broker_cpu_s: Figure | None


def summed_up(trials: Sequence[Trial]) -> list[Result]:
    """The results, in the order in which their first trials were made."""
    keys = dict.fromkeys((one.texts, one.processes, one.subject) for one in trials)
    return [_result(trials, *key) for key in keys]


def fresh(fraction: float, rate: float, measured: Freshness) -> dict[str, Any]:
    """A level of load, ready for JSON; times in milliseconds."""
    return {
        "load": fraction,
        "asked_docs_per_s": rate,
        "docs_per_s": measured.load.docs / measured.load.seconds,
        "docs": len(measured.topic_ms),
        "topic_ms": _percentiles(measured.topic_ms),
        "table_ms": _percentiles(measured.table_ms),
        "cores": measured.cores,
        "generator_late_p99_ms": measured.load.late_p99_ms,
    }


def ready(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Results, ready for JSON."""
    return [asdict(one) for one in results]


def _result(trials: Sequence[Trial], texts: str, processes: int, subject: str) -> Result:
    kin = [one for one in trials if (one.texts, one.processes) == (texts, processes)]
    own = [one for one in kin if one.subject == subject]
    control = {one.round: one for one in kin if one.subject == FP32}
    model = control | {one.round: one for one in kin if one.subject == AUTO}
    counted = [one for one in own if one.tokens]
    docs = sum(one.docs for one in counted)
    return Result(
        texts,
        processes,
        subject,
        sum(one.tokens for one in counted) / docs if docs else None,
        Figure.of(_speed(one) for one in own),
        Figure.of(_ratios(own, control, _speed)),
        Figure.of(_thrift(one) for one in own),
        Figure.of(_ratios(own, control, _thrift)),
        Figure.of(one.docs / one.table_s for one in own if one.table_s),
        Figure.of(1 - r for r in _ratios(own, model, _thrift)) if subject == FLOW else None,
        Figure.of(one.docs / one.broker_cpu_s for one in own if one.broker_cpu_s),
    )


def _ratios(
    own: Iterable[Trial], base: dict[int, Trial], measure: Callable[[Trial], float]
) -> list[float]:
    return [measure(one) / measure(base[one.round]) for one in own if one.round in base]


def _speed(trial: Trial) -> float:
    return trial.docs / trial.wall_s


def _thrift(trial: Trial) -> float:
    return trial.docs / trial.cpu_s


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    found = np.percentile(values, (50, 90, 99, 100))
    return dict(zip(("p50", "p90", "p99", "max"), map(float, found), strict=True))
