"""By what a record says that its document is deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from operators.guess.expressions import member, raw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operators.guess.fields import Field

__all__ = ["guess_deletion"]

FLAGS: Final = frozenset({"deleted", "removed", "tombstone"})
ACTIONS: Final = frozenset({"op", "operation", "action", "event", "type", "status", "state"})
WORDS: Final = frozenset({"delete", "deleted", "remove", "removed"})
BESIDE: Final = frozenset({"is", "was", "soft", "at", "on", "date", "time", "flag", ""})
"""Words that a flag's name may have beside: another makes it the name of something else."""


def guess_deletion(fields: Sequence[Field]) -> str | None:
    """An expression that holds of a record which deletes its document; None if none seems to."""
    top = [field for field in fields if len(field.path) == 1]
    found = (_flag(field) or _action(field) for field in top)
    return next((expression for expression in found if expression), None)


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
