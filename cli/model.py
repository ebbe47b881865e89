"""`headrace model`: builds and shows model bundles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.output import emit, say
from flows.parts import model_source_of
from operators.model import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.settings import Settings

__all__ = ["bundle", "show"]


def bundle(settings: Settings) -> dict[str, Any]:
    """The model as it runs on this machine; its bundle is built if it is not there.

    Raises:
        ModelError: It can't be had, or not as the settings want it.
    """
    model = settings.model
    return describe(model_source_of(settings), runtime=model.runtime, precision=model.precision)


def show(told: dict[str, Any], fields: Sequence[str] | None = None, *, as_json: bool) -> None:
    """Print a model's description.

    Args:
        told: The description.
        fields: What of it people are shown; all unless given.
        as_json: Whether to print all of it as JSON.
    """
    if as_json:
        emit(told)
        return
    for name in fields or told:
        value = told[name]
        if name == "figures":
            value = "".join(f"\n  {who}: {_figures(what)}" for who, what in value.items())
        elif isinstance(value, list | dict):
            value = _figures(value) if isinstance(value, dict) else ", ".join(value) or "none"
        for line in f"{name}: {value}".splitlines():
            say(line)


def _figures(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in values.items()) or "none"
