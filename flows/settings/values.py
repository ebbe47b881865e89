"""What settings are made of: names, lists, tables, secrets, as file and environment have them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from headrace.errors import UsageError
from operators.routing import Route, is_template

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "FIXED_COLUMNS",
    "MetricsUrl",
    "Section",
    "TableName",
    "Text",
    "TopicName",
    "check_column",
    "check_table",
    "client_options",
    "from_json",
    "from_json_list",
    "from_list",
]

FILE_OPTIONS: Final = frozenset(
    {
        "sasl.oauthbearer.assertion.private.key.file",
        "sasl.oauthbearer.assertion.jwt.template.file",
    }
)
"""librdkafka's own options that end as the name of a secret's file does."""

FIXED_COLUMNS: Final = frozenset(
    {
        *("id", "vector", "text", "metadata", "event_time", "embedded_at", "model", "tokens"),
        *("truncated", "source_topic", "source_partition", "source_offset", "deleted", "chunk"),
        *("chunk_start", "chunk_end", "chunk_hash", "key"),
    }
)
"""What a metadata column can't be called."""

TABLE_NAME: Final = r"^[a-zA-Z0-9_.-]{1,200}$"

TopicName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]
TableName = Annotated[str, Field(pattern=TABLE_NAME)]
Text = Annotated[str, Field(min_length=1)]
MetricsUrl = Annotated[str, Field(pattern=r"^https?://\S+$")]


class Section(BaseModel):
    """Settings that belong together; what it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def check_column(name: str) -> None:
    """See that a metadata column may have a name.

    Raises:
        ValueError: It is taken, or is no name.
    """
    if name in FIXED_COLUMNS or not name.isidentifier():
        raise ValueError(f"{name!r} can't be the name of a metadata column")


def check_table(name: str) -> None:
    """See that a table may have a name, or that a template makes names.

    Raises:
        ValueError: It can't.
    """
    if is_template(name):
        try:
            Route(name)
        except UsageError as error:
            raise ValueError(str(error)) from error
    elif not re.fullmatch(TABLE_NAME, name):
        raise ValueError("a name has 1 to 200 letters, digits, '_', '-' and '.'")


def from_json(value: object) -> object:
    """A list or a table, as the environment holds it."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        return json.loads(value)
    return value


def from_json_list(value: object) -> object:
    """A list, as the environment holds it; any other text is what it is."""
    return from_json(value) if isinstance(value, str) and value.startswith("[") else value


def from_list(value: object) -> object:
    """A list, as JSON or with commas between."""
    value = from_json(value)
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def client_options(section: str) -> BeforeValidator:
    """Options of a library's client, as a file or the environment holds them."""

    def flat(value: object) -> object:
        value = from_json(value)
        return dict(_client_options(section, value)) if isinstance(value, dict) else value

    return BeforeValidator(flat)


def _client_options(
    section: str, given: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, str]]:
    """A library's options; what ends in `file` is read from the file that it names."""
    for name, value in given.items():
        full = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _client_options(section, value, f"{full}.")
        elif full.endswith(("_file", ".file")) and full not in FILE_OPTIONS:
            yield full[: -len("_file")], _secret(f"{section}.{full}", str(value))
        else:
            yield full, str(value).lower() if isinstance(value, bool) else str(value)


def _secret(name: str, path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise ValueError(f"{name}: {path}: {error.strerror}") from error
