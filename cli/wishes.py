"""What a user says of the mapping, by options or by answers, in the form that settings have."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import typer

from headrace.errors import UsageError
from operators.columns import COLUMN_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Wishes", "ask", "with_wishes"]

NONE: Final = "none"
"""What is said where a setting is to be left out."""

OPTIONAL: Final = ("metadata", "timestamp", "delete_when", "filter")

QUESTIONS: Final = {
    "id": "Where is the document's id (key, or a pointer such as /id)",
    "text": "What is its text (pointers, or a template such as {/title}. {/body?})",
    "markup": "What is the text written in (none, html, markdown)",
    "metadata": "Which metadata is kept (name=/pointer:type)",
    "timestamp": "Where is the record's time",
    "delete_when": "Which records delete their document (JMESPath)",
    "filter": "Which records are taken (JMESPath)",
}

_COMMAS: Final = re.compile(r",\s*")


@dataclass(frozen=True)
class Wishes:
    """What the options say; None where nothing is said.

    Attributes:
        id: As `source.id`.
        text: As `source.text`, or pointers with commas between.
        markup: As `source.markup`.
        metadata: Fields as `NAME=POINTER:TYPE`, the type left out for one that is no column.
        timestamp: As `source.timestamp`.
        delete_when: As `source.delete_when`.
        filter: As `source.filter`.
    """

    id: str | None = None
    text: str | None = None
    markup: str | None = None
    metadata: Sequence[str] | None = None
    timestamp: str | None = None
    delete_when: str | None = None
    filter: str | None = None


def with_wishes(source: Mapping[str, Any], wishes: Wishes) -> dict[str, Any]:
    """Settings of the section `source`, as guessed and as wished.

    Raises:
        UsageError: A metadata field is not written as it must be.
    """
    changed = dict(source)
    if wishes.text is not None and wishes.filter is None:
        changed.pop("filter", None)  # it asks for the text that was guessed
    for name, said in asdict(wishes).items():
        if said is not None:
            text = ", ".join(said) if name == "metadata" else said
            _put(changed, name, text)
    return changed


def ask(source: Mapping[str, Any], skipped: Sequence[str] = ()) -> dict[str, Any]:
    """Ask a person for each setting, the guess being what is meant by no answer.

    Args:
        source: The settings as they were guessed.
        skipped: Those that are not asked for.

    Raises:
        UsageError: A metadata field is not written as it must be.
    """
    changed = dict(source)
    for name, question in QUESTIONS.items():
        if name not in skipped:
            guessed = _shown(name, source.get(name))
            _put(changed, name, typer.prompt(question, default=guessed))
    return changed


def _put(source: dict[str, Any], name: str, said: str) -> None:
    said = said.strip()
    if name in OPTIONAL and said in ("", NONE):
        source.pop(name, None)
    elif name == "metadata":
        source[name] = dict(map(_metadata, _COMMAS.split(said)))
    elif name == "text":
        parts = _COMMAS.split(said)
        several = len(parts) > 1 and all(part.startswith("/") for part in parts)
        source[name] = parts if several else said
    else:
        source[name] = said


def _shown(name: str, value: object) -> str | None:
    """A setting as an answer would be."""
    if isinstance(value, dict):
        return ", ".join(
            f"{key}={one['at']}" + (f":{one['type']}" if "type" in one else "")
            for key, one in value.items()
        )
    if isinstance(value, list | tuple):
        return ", ".join(value)
    if value is None and name in (*OPTIONAL, "markup"):
        return NONE
    return None if value is None else str(value)


def _metadata(said: str) -> tuple[str, dict[str, str]]:
    name, equals, place = said.partition("=")
    at, _, kind = place.rpartition(":")
    if kind not in COLUMN_TYPES:
        at, kind = place, ""
    if not name or not equals or not at.startswith("/"):
        raise UsageError(
            f"--metadata: {said!r}: is not NAME=POINTER or NAME=POINTER:TYPE, as "
            "price=/price:float64 is"
        )
    return name.strip(), {"at": at, "type": kind} if kind else {"at": at}
