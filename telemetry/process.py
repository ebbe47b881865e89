"""Metrics of the process itself, and of the table writers that it has started."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry

__all__ = ["ProcessMetrics"]


class ProcessMetrics(Collector):
    """Cores, memory and age, read when they are asked for.

    Args:
        registry: Where they are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._process = psutil.Process()
        self._seen = _spent([self._process, *self._process.children()]), time.monotonic()
        registry.register(self)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The gauges without values: looking at a process counts as a look."""
        yield from _families()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges as they stand."""
        cores, memory, started = _families()
        writers = self._process.children()
        cores.add_metric([], self._cores([self._process, *writers]))
        memory.add_metric(["worker"], _resident([self._process]))
        if writers:
            memory.add_metric(["table_writer"], _resident(writers))
        started.add_metric([], self._process.create_time())
        yield from (cores, memory, started)

    def _cores(self, processes: list[psutil.Process]) -> float:
        """CPU-seconds a second since the look before."""
        spent, now = _spent(processes), time.monotonic()
        before, since = self._seen
        self._seen = spent, now
        return max(0.0, spent - before) / max(now - since, 1e-3)


def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
    return (
        GaugeMetricFamily(
            "headrace_cpu_utilization",
            "Cores that this process and its table writer use, since the last look.",
        ),
        GaugeMetricFamily(
            "headrace_resident_memory_bytes", "Memory in use, by process.", labels=["process"]
        ),
        GaugeMetricFamily("headrace_start_time_seconds", "When the process began, in Unix time."),
    )


def _spent(processes: list[psutil.Process]) -> float:
    total = 0.0
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system
    return total


def _resident(processes: list[psutil.Process]) -> float:
    total = 0.0
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            total += one.memory_info().rss
    return total
