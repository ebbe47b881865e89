"""Sections: how a flow that runs is watched and recovers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from flows.settings.values import Section

__all__ = ["MetricsSettings", "RecoverySettings", "TracesSettings"]


class RecoverySettings(Section):
    """What a start must know of how the process before it ended."""

    suspects: str = Field(
        "data/suspects",
        description="Folder, on a disk of this machine, of notes on what was in hand when a "
        "process died, by which a record that it dies of is found. Empty: off.",
    )


class MetricsSettings(Section):
    """Metrics."""

    address: Annotated[str, Field(pattern=r"^(\S+:\d{1,5})?$")] = Field(
        "127.0.0.1:9464",
        description="Where Prometheus reads; the process index is added to the port. Empty: off.",
    )
    stalled_s: float = Field(
        120.0,
        ge=1,
        le=86_400,
        description="Seconds without progress after which a flow that has something to do is "
        "stalled.",
    )

    @field_validator("address")
    @classmethod
    def _port(cls, address: str) -> str:
        if address and not 0 < int(address.rpartition(":")[2]) < 65536:
            raise ValueError("the port must be from 1 to 65535")
        return address


class TracesSettings(Section):
    """Traces."""

    endpoint: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = Field(
        "",
        description="Where spans go, by OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`; "
        "unless set, where OpenTelemetry's own variables say. Empty: off.",
    )
    sample: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of traces that are recorded, of those that begin here; one that comes "
        "sampled always is.",
    )
