"""The metrics of several pipelines of one process, told apart by a label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry

__all__ = ["LABEL", "PipelineMetrics"]

LABEL = "pipeline"


class PipelineMetrics(Collector):
    """Shows each pipeline's registry with the pipeline's name on every series.

    Args:
        registry: Where they are shown together.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registries: dict[str, CollectorRegistry] = {}
        registry.register(self)

    def add(self, name: str, registry: CollectorRegistry) -> None:
        """Show a pipeline's metrics."""
        self._registries[name] = registry

    def describe(self) -> Iterator[Metric]:
        """Nothing: which metrics there are is known to the pipelines' own registries."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Each metric once, with the series of all pipelines that have it."""
        together: dict[str, Metric] = {}
        for name, registry in self._registries.items():
            for own in registry.collect():
                metric = Metric(own.name, own.documentation, own.type)
                shown = together.setdefault(own.name, metric)
                shown.samples += [
                    sample._replace(labels={LABEL: name, **sample.labels}) for sample in own.samples
                ]
        yield from together.values()
