"""Reads the settings: a TOML file, and the environment, which wins."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from flows.settings.faults import told
from flows.settings.pipelines import variable_of
from flows.settings.values import from_json
from flows.settings.whole import Settings
from headrace.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["load", "settings_of"]

PREFIX: Final = "HEADRACE_"
CONFIG_VARIABLE: Final = "HEADRACE_CONFIG"
DEFAULT_FILE: Final = "headrace.toml"

CLIENTS: Final = frozenset({("kafka", "client"), ("registry", "client")})
"""Settings that hold options by the names that a library has for them."""


def load(environ: Mapping[str, str], folder: Path) -> Settings:
    """The settings that the environment and a file in a folder give.

    Raises:
        UsageError: A setting is unknown or can't be right; the text names it and its value.
    """
    given = _from_file(environ, folder)
    for path, value in _from_environment(environ):
        _set(*_place(given, path), value)
    traces = given.setdefault("traces", {})
    if isinstance(traces, dict):
        traces.setdefault("endpoint", _collector(environ))
    return settings_of(given)


def settings_of(given: Mapping[str, Any]) -> Settings:
    """The settings that some sections give.

    Raises:
        UsageError: A setting is unknown or can't be right; the text names it and its value.
    """
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        raise UsageError(told(error)) from error


def _collector(environ: Mapping[str, str]) -> str:
    """Where OpenTelemetry's own variables say that spans go; empty where they don't."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ""
    base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    of_all = f"{base.rstrip('/')}/v1/traces" if base else ""
    return environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip() or of_all


def _from_file(environ: Mapping[str, str], folder: Path) -> dict[str, Any]:
    named = environ.get(CONFIG_VARIABLE)
    path = folder / (named or DEFAULT_FILE)
    if not named and not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"{CONFIG_VARIABLE}: {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{CONFIG_VARIABLE}: {path}: not TOML: {error}") from error


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[list[str], str]]:
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable != CONFIG_VARIABLE:
            # At most three parts: what follows kafka.client or registry.client is a library's name.
            parts = variable[len(PREFIX) :].lower().split("__", 2)
            if parts[0] == "pipelines":
                parts[2:] = "".join(parts[2:]).split("__", 1) if parts[2:] else []
            yield parts, environ[variable]


def _place(given: dict[str, Any], path: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Where a variable's setting is: for one of a pipeline, among what that has of its own."""
    if path[0] != "pipelines" or len(path) == 1:
        return given, path
    if isinstance(given.get("pipelines"), str):
        given["pipelines"] = _section([*path[:1], ""], given["pipelines"])
    pipelines = given.get("pipelines")
    for one in pipelines if isinstance(pipelines, list) else ():
        name = one.get("name") if isinstance(one, dict) else None
        if isinstance(name, str) and variable_of(name) == path[1].upper():
            if len(path) < 4:
                raise UsageError(f"{'.'.join(path)}: is no setting; give section and name")
            return one, path[2:]
    raise UsageError(f"pipelines.{path[1]}: there is no such pipeline")


def _set(given: dict[str, Any], path: list[str], value: str) -> None:
    section = given
    for name in path[:-1]:
        inner = section.setdefault(name, {})
        if isinstance(inner, str):
            inner = section[name] = _section(path, inner)
        if not isinstance(inner, dict):
            raise UsageError(f"{'.'.join(path)}: {name} is no section")
        section = inner
    name = path[-1]
    section[name.replace("_", ".") if tuple(path[:2]) in CLIENTS else name] = value


def _section(path: list[str], text: str) -> object:
    try:
        return from_json(text)
    except ValueError as error:
        # Not the text itself: it may hold a secret.
        raise UsageError(f"{'.'.join(path[:-1])}: not JSON: {error}") from None
