"""By what a record says that its document is deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from operators.guess.expressions import member, raw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operators.guess.fields import Field

__all__ = ["Deletion", "guess_deletion"]

FLAGS: Final = frozenset({"deleted", "removed", "tombstone"})
ACTIONS: Final = frozenset({"op", "operation", "action", "event", "type", "status", "state"})
WORDS: Final = frozenset({"delete", "deleted", "remove", "removed"})
BESIDE: Final = frozenset({"is", "was", "soft", "at", "on", "date", "time", "flag", ""})
"""Words that a flag's name may have beside: another makes it the name of something else."""

PAYLOAD: Final = "payload"
"""Where Kafka Connect puts a row that stands beside its schema."""


class Deletion(NamedTuple):
    """How a deletion is told.

    Attributes:
        expression: It holds of a record which deletes its document.
        flag: Pointer to a field that says nothing else; None where it is one of many values.
    """

    expression: str
    flag: str | None


def guess_deletion(fields: Sequence[Field]) -> Deletion | None:
    """How records tell that their document is deleted; None if none seems to."""
    for field in fields:
        depth = len(field.path) - (field.path[0] == PAYLOAD)
        if depth <= 1 and (flag := _flag(field)):
            return Deletion(flag, field.pointer)
        if depth == 1 and (action := _action(field)):
            return Deletion(action, None)
    return None


def _flag(field: Field) -> str | None:
    words = set(field.words)
    if not words & FLAGS or not words <= FLAGS | BESIDE:
        return None
    name = member(field.path)
    if field.kind == "boolean":
        return name
    if field.kind == "integer" and set(field.values) <= {0, 1}:
        return f"{name} == `1`"
    if field.kind != "string":
        return None
    if {value.lower() for value in field.values} <= {"true", "false"}:
        true = next((value for value in field.values if value.lower() == "true"), "true")
        return f"{name} == {raw(true)}"
    # A time that is there only once it has been deleted.
    return name if words & {"at", "on", "date", "time"} and not field.always else None


def _action(field: Field) -> str | None:
    if field.kind != "string" or len(field.words) != 1 or field.words[0] not in ACTIONS:
        return None
    seen = sorted({value for value in field.values if value.lower() in WORDS})
    if not seen or field.distinct == len(seen):
        return None
    return " || ".join(f"{member(field.path)} == {raw(value)}" for value in seen)
