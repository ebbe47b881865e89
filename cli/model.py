"""`headrace model`: builds and shows model bundles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cli.output import emit, say
from cli.texts import read_texts
from flows.access import model_source_of
from headrace.errors import UsageError
from operators.model import describe, make_int8, open_bundle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flows.settings import Settings

__all__ = ["bundle", "quantize", "show"]

LEAST_TEXTS: Final = 100
MOST_TEXTS: Final = 500
"""Texts to calibrate on: fewer reach too little of what may come, more only take longer."""


def bundle(settings: Settings) -> dict[str, Any]:
    """The model as it runs on this machine; its bundle is built if it is not there.

    Raises:
        ModelError: It can't be had, or not as the settings want it.
    """
    model = settings.model
    return describe(
        model_source_of(settings),
        runtime=model.runtime,
        precision=model.precision,
        least_agreement=model.least_agreement,
    )


def quantize(settings: Settings, file: Path | None) -> dict[str, Any]:
    """Make the model's int8 form, unless it is there.

    Args:
        settings: They name the model.
        file: JSON lines with texts to calibrate on; Headrace's own unless given.

    Returns:
        The form's `path`, `fingerprint`, and how it was made.

    Raises:
        UsageError: The file can't be read, or has too few texts.
        CommandError: A line of it is wrong.
        ModelError: The model can't be had, or not in int8.
    """
    texts = None if file is None else _chosen(file)
    made = make_int8(open_bundle(model_source_of(settings)), texts)
    return {
        "path": str(made.path),
        "fingerprint": made.fingerprint,
        **(made.manifest.quantized or {}),
    }


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
        elif name == "refused":
            value = "".join(f"\n  {who}: {why}" for who, why in value.items()) or "none"
        elif value is None:
            value = "none"
        elif isinstance(value, list | dict):
            value = _figures(value) if isinstance(value, dict) else ", ".join(value) or "none"
        for line in f"{name}: {value}".splitlines():
            say(line)


def _chosen(file: Path) -> list[str]:
    """A file's texts; of many some, from all over it."""
    texts = [text for text in read_texts(file) if text.strip()]
    if len(texts) < LEAST_TEXTS:
        raise UsageError(f"--texts: {file}: {len(texts)} texts; give {LEAST_TEXTS} or more")
    step = -(-len(texts) // MOST_TEXTS)
    return texts[::step]


def _figures(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in values.items()) or "none"
