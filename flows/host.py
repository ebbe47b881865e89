"""What the pipelines of one process share: its metrics, its model and its end."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from flows.access import encoder_of
from headrace.errors import HeadraceError
from operators.model.turns import Turns
from recovery.health import together
from recovery.poison import PoisonGuard
from recovery.shutdown import Shutdown
from telemetry import probes
from telemetry.clients import interval_s
from telemetry.metrics import Metrics
from telemetry.pipelines import PipelineMetrics
from telemetry.process import ProcessMetrics

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from flows.settings import Settings
    from operators.model import Encoder
    from recovery.health import FlowHealth
    from recovery.store import Launch

__all__ = ["Host", "naming"]


@contextmanager
def naming(pipeline: str) -> Iterator[None]:
    """Let an error of ours say whose it is, where there are several pipelines."""
    try:
        yield
    except HeadraceError as error:
        if not pipeline:
            raise
        raise type(error)(f"pipelines.{pipeline}: {error}") from error


@dataclass
class Host:
    """What the pipelines of one process share.

    Attributes:
        launch: How Bytewax was started.
        lanes: How many lanes all of them have.
        several: Whether there is more than one.
        shutdown: Whether to end.
        topic_parts: The parts of their topic sinks that this process has built.
    """

    launch: Launch
    lanes: int
    several: bool
    shutdown: Shutdown = field(init=False)
    topic_parts: list[str] = field(default_factory=list, init=False)
    _guards: list[PoisonGuard] = field(default_factory=list, init=False)
    _encoders: dict[tuple[str, int | None], Encoder] = field(default_factory=dict, init=False)
    _registry: CollectorRegistry | None = field(default=None, init=False)
    _pipelines: PipelineMetrics | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.shutdown = Shutdown(self._forgive)
        # A core is meant for each worker: however many pipelines it serves, one has it at a time.
        several = self.several
        self._turns: AbstractContextManager[object] = (
            Turns(self.launch.workers) if several else nullcontext()
        )

    def metrics(self, settings: Settings, sinks: Sequence[str]) -> Metrics:
        """Where a pipeline counts.

        Args:
            settings: The pipeline's.
            sinks: Those of its sinks that are tables.
        """
        every_s = interval_s(self.lanes) if settings.metrics.address else 0.0
        made = Metrics(
            freshness_ms=settings.batch.freshness_ms,
            tables=sinks,
            clients_s=every_s,
            pipeline=settings.name,
        )
        if not settings.name:
            self._registry = made.registry
            return made
        if self._registry is None or self._pipelines is None:
            self._registry = CollectorRegistry()
            ProcessMetrics(self._registry)
            self._pipelines = PipelineMetrics(self._registry)
        self._pipelines.add(settings.name, made.registry)
        return made

    def encoder(self, settings: Settings, metrics: Metrics) -> Encoder:
        """A pipeline's model, which is loaded once for all that have the same settings of it.

        Raises:
            ModelError: It can't be had, or not as the settings want it.
        """
        beside = {"cache_entries": 0, "cache_bytes": 0, "chunk_prefix": "", "reuse": "auto"}
        model = settings.model.model_copy(update=beside).model_dump_json()
        alike = model, settings.batch.tokens
        if alike not in self._encoders:
            self._encoders[alike] = encoder_of(settings)
        encoder = self._encoders[alike].shared(self._turns, metrics.inference)
        metrics.build.labels(version("headrace"), encoder.name, *encoder.served_by).set(1)
        return encoder

    def guard(self, folder: str, application_id: str) -> PoisonGuard | None:
        """What knows the records that end the process, for one application on this machine."""
        if not folder:
            return None
        guard = PoisonGuard(Path(folder) / f"app-{application_id}")
        self._guards.append(guard)
        return guard

    def serve(self, address: str, health: Mapping[str, FlowHealth]) -> None:
        """Serve metrics and probes, if there is an address for them.

        Args:
            address: Of the first process.
            health: That of each pipeline, by name.

        Raises:
            HeadraceError: The address is taken or isn't this machine's.
        """
        if not address or self._registry is None:
            return
        host, _, port = address.rpartition(":")
        ways = {
            "/health/live": {name: one.live for name, one in health.items()},
            "/health/ready": {name: one.ready for name, one in health.items()},
        }
        paths = {
            path: together(own) if self.several else next(iter(own.values()))
            for path, own in ways.items()
        }
        probes.serve(host, int(port) + self.launch.process, self._registry, paths)
        for one in health.values():
            one.watch()

    def _forgive(self) -> None:
        for guard in self._guards:
            guard.forgive()
