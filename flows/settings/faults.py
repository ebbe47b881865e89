"""What is wrong with settings, in one line that names the setting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = ["told"]

SECRET: Final = ("kafka.client", "registry.client", "registry.url", "auth.jwt_key", "pipelines")
"""Settings whose values are in no error."""


def told(error: ValidationError) -> str:
    """The first fault, in one line, by the setting's name, and without secrets."""
    fault = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in fault["loc"]) or "settings"
    if fault["type"] == "extra_forbidden":
        return f"{name}: there is no such setting"
    message = fault["msg"].removeprefix("Value error, ")
    own = (
        "serve.",
        "auth.",
        "recommend.",
        "source.",
        "embeddings.",
        "table.columns:",
        "table.name:",
    )
    if message.startswith(own):
        return message
    if "." not in name or name.startswith(SECRET):
        return message if name == "settings" else f"{name}: {message}"
    return f"{name}: {fault['input']!r}: {message}"
