"""Medians and ratios of what was measured, ready for JSON."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.control import AUTO, FP32
from benchmarks.subjects import FLOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from benchmarks.rig import Freshness

__all__ = ["Figure", "Result", "Trial", "fresh", "ready", "summed_up"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One subject, measured once.

    Attributes:
        texts: `short` or `medium`.
        processes: Of the subject.
        subject: A control's name, or another subject's.
        round: Of the run.
        docs: Documents.
        wall_s: Seconds that they took: until the topic had the last one, or else the table.
        cpu_s: CPU-seconds of the subject's processes, until both had it.
        tokens: Tokens of all documents; 0 where they were not counted.
        padded: The same with padding.
        table_s: Seconds until the table had the last one; None without a table.
        broker_cpu_s: CPU-seconds of the broker meanwhile; None of a control.
        peak_mib: The most memory that one process had held; None of a control.
        shares: Of the flow, what its metrics say; see `benchmarks.meters.shares`.
        threads: CPU-seconds by the names of threads.
    """

    texts: str
    processes: int
    subject: str
    round: int
    docs: int
    wall_s: float
    cpu_s: float
    tokens: int = 0
    padded: int = 0
    table_s: float | None = None
    broker_cpu_s: float | None = None
    peak_mib: float | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    threads: Mapping[str, float] = field(default_factory=dict)


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
    """One subject over all rounds; ratios are within a round, between as many processes.

    Attributes:
        texts: `short` or `medium`.
        processes: Of the subject, and of what it is compared to.
        subject: A control's name, or another subject's.
        tokens: Mean tokens of a document; None where they were not counted.
        padding: The share of padding in what went through the model; None as above.
        docs_per_s: Documents a second.
        docs_per_s_control: The same, in times of the fp32 control's.
        docs_per_s_model: The same, in times of the chosen runtime's alone.
        docs_per_s_flow: How many times as fast the flow was.
        docs_per_cpu_s: Documents for each CPU-second of the subject's processes.
        docs_per_cpu_s_control: The same, in times of the fp32 control's.
        docs_per_cpu_s_model: The same, in times of the chosen runtime's alone.
        docs_per_cpu_s_flow: How many times as many the flow did.
        table_docs_per_s: Documents a second until the table had the last one.
        docs_per_broker_cpu_s: Documents for each CPU-second of the broker.
        peak_mib: The most memory that one process held.
        shares: Of the flow, medians of what its metrics say.
        threads: Of the flow, each kind of thread's median share of the CPU time.
    """

    texts: str
    processes: int
    subject: str
    tokens: float | None
    padding: float | None
    docs_per_s: Figure | None
    docs_per_s_control: Figure | None
    docs_per_s_model: Figure | None
    docs_per_s_flow: Figure | None
    docs_per_cpu_s: Figure | None
    docs_per_cpu_s_control: Figure | None
    docs_per_cpu_s_model: Figure | None
    docs_per_cpu_s_flow: Figure | None
    table_docs_per_s: Figure | None
    docs_per_broker_cpu_s: Figure | None
    peak_mib: Figure | None
    shares: Mapping[str, float]
    threads: Mapping[str, float]


def summed_up(trials: Sequence[Trial]) -> list[Result]:
    """The results, in the order in which their first trials were made."""
    keys = dict.fromkeys((one.texts, one.processes, one.subject) for one in trials)
    return [_result(trials, *key) for key in keys]


def fresh(fraction: float | None, rate: float, measured: Freshness) -> dict[str, Any]:
    """A level of load, ready for JSON; times in milliseconds.

    Args:
        fraction: Of the subject's capacity; None where the rate is given.
        rate: Documents a second that were asked for.
        measured: What was seen.
    """
    load = measured.load
    gaps = len(load.documents) - 1
    return {
        "load": fraction,
        "asked_docs_per_s": rate,
        "docs_per_s": gaps / load.seconds if gaps else rate,
        "docs": max(len(measured.topic_ms), len(measured.table_ms)),
        "topic_ms": _percentiles(measured.topic_ms),
        "table_ms": _percentiles(measured.table_ms),
        "cores": measured.cores,
        "generator_late_p99_ms": load.late_p99_ms,
    }


def ready(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Results, ready for JSON."""
    return [asdict(one) for one in results]


def _result(trials: Sequence[Trial], texts: str, processes: int, subject: str) -> Result:
    kin = [one for one in trials if (one.texts, one.processes) == (texts, processes)]
    own = [one for one in kin if one.subject == subject]
    control = {one.round: one for one in kin if one.subject == FP32}
    model = control | {one.round: one for one in kin if one.subject == AUTO}
    flow = {one.round: one for one in kin if one.subject == FLOW}
    tokens, padded = sum(one.tokens for one in own), sum(one.padded for one in own)
    return Result(
        texts,
        processes,
        subject,
        tokens / sum(one.docs for one in own) if tokens else None,
        1 - tokens / padded if padded else None,
        Figure.of(_speed(one) for one in own),
        Figure.of(_ratios(own, control, _speed)),
        Figure.of(_ratios(own, model, _speed)),
        Figure.of(1 / ratio for ratio in _ratios(own, flow, _speed)),
        Figure.of(_thrift(one) for one in own),
        Figure.of(_ratios(own, control, _thrift)),
        Figure.of(_ratios(own, model, _thrift)),
        Figure.of(1 / ratio for ratio in _ratios(own, flow, _thrift)),
        Figure.of(one.docs / one.table_s for one in own if one.table_s),
        Figure.of(one.docs / one.broker_cpu_s for one in own if one.broker_cpu_s),
        Figure.of(one.peak_mib for one in own if one.peak_mib),
        _medians([one.shares for one in own]),
        _medians([_parts(one.threads) for one in own]),
    )


def _ratios(
    own: Iterable[Trial], base: Mapping[int, Trial], measure: Callable[[Trial], float]
) -> list[float]:
    return [measure(one) / measure(base[one.round]) for one in own if one.round in base]


def _speed(trial: Trial) -> float:
    return trial.docs / trial.wall_s


def _thrift(trial: Trial) -> float:
    return trial.docs / trial.cpu_s


def _medians(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each name; what is missing counts as 0."""
    names = dict.fromkeys(name for one in found for name in one)
    return {name: statistics.median(one.get(name, 0.0) for one in found) for name in names}


def _parts(amounts: Mapping[str, float]) -> dict[str, float]:
    whole = sum(amounts.values())
    return {name: amount / whole for name, amount in amounts.items()} if whole else {}


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    found = np.percentile(values, (50, 90, 99, 100))
    return dict(zip(("p50", "p90", "p99", "max"), map(float, found), strict=True))
