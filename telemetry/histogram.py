"""A Prometheus histogram that takes many values at once.

The client's own takes them one by one, at a microsecond each; a flow has two for every record.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray
    from prometheus_client import CollectorRegistry

__all__ = ["BatchHistogram"]


class BatchHistogram(Collector):
    """A histogram with one label; safe for several threads.

    Args:
        name: Its name.
        text: What it counts.
        label: Its label's name.
        bounds: The upper bounds of its buckets, rising; one without a bound is added.
        registry: Where it is registered.
    """

    def __init__(
        self,
        name: str,
        text: str,
        label: str,
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._text = text
        self._label = label
        self._bounds = np.array(bounds, dtype=np.float64)
        self._lock = Lock()
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._sums: dict[str, float] = {}
        registry.register(self)

    def observe(self, label: str, values: ArrayLike) -> None:
        """Count values under a label."""
        taken = np.asarray(values, dtype=np.float64)
        # A bucket holds what is at most its bound, so equal values go to the left.
        places = np.searchsorted(self._bounds, taken, side="left")
        counts = np.bincount(places, minlength=len(self._bounds) + 1)
        with self._lock:
            self._counts[label] = self._counts.get(label, 0) + counts
            self._sums[label] = self._sums.get(label, 0.0) + float(taken.sum())

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """The histogram without values: what registering needs to know."""
        yield HistogramMetricFamily(self._name, self._text, labels=[self._label])

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The histogram as it stands."""
        family = HistogramMetricFamily(self._name, self._text, labels=[self._label])
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        with self._lock:
            for label, counts in self._counts.items():
                buckets = list(zip(names, map(float, counts.cumsum()), strict=True))
                family.add_metric([label], buckets, self._sums[label])
        yield family
