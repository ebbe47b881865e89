"""The schema registry that the settings name, where they want one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import headrace
from headrace.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from clients.registry import Registry
    from flows.settings import Settings
    from sources.registered import RegisteredValues

__all__ = ["embedding_schema", "registry_of", "values_of"]

_INSTALL: Final = "pip install 'headrace[registry]'"


def registry_of(
    settings: Settings,
    outage_s: float | None = None,
    pause: Callable[[float], None] = time.sleep,
    told: Callable[..., None] = lambda **_: None,
) -> Registry | None:
    """The registry; None where neither what is read nor what is written has to do with it.

    Args:
        settings: The settings.
        outage_s: How long it may be away, in seconds; as long as the broker unless given.
        pause: Waits for so many seconds while it is away.
        told: Told when it is away, and when it is there again.

    Raises:
        UsageError: An option of its client is wrong, or a package is missing.
    """
    if "registry" not in {settings.source.encoding, settings.embeddings.encoding}:
        return None
    try:
        from clients.registry import Registry  # noqa: PLC0415 - what an extra installs
    except ImportError as error:
        raise UsageError(
            f"registry.url: needs packages that are not installed ({error.name}): {_INSTALL}"
        ) from error
    own = settings.registry
    most = settings.kafka.outage_s if outage_s is None else outage_s
    return Registry(own.url, own.client, most, pause, told)


def values_of(settings: Settings, registry: Registry | None) -> RegisteredValues | None:
    """What reads keys and values by the registry's schemas; None where they are no such."""
    if registry is None or settings.source.encoding != "registry":
        return None
    from sources.registered import RegisteredValues  # noqa: PLC0415 - what an extra installs

    return RegisteredValues(registry, settings.registry.key == "registry")


def embedding_schema() -> str:
    """The schema of embeddings, as a source text: what people read in a registry."""
    folder = Path(next(iter(headrace.__path__))).parent
    return (folder / "proto/headrace/v1/embedding.proto").read_text(encoding="utf-8")
