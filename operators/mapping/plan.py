"""What the settings say of where things are in a record, compiled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from operators.judging import identity_of, reject
from operators.mapping.convert import convert
from operators.mapping.expression import Expression
from operators.mapping.markup import MARKUP
from operators.mapping.texts import fields_of, text_of
from operators.mapping.times import time_ms
from operators.pointer import Pointer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from operators.values import Values

__all__ = ["KEY", "Field", "Places", "Plan"]

KEY: Final = "key"
"""What `source.id` says, or begins with, where the id is the record's key, or in it."""

ID: Final = "source.id"
METADATA: Final = "source.metadata"
TIMESTAMP: Final = "source.timestamp"


class Field(NamedTuple):
    """A metadata field.

    Attributes:
        at: Its pointer.
        type: One of the columns' types; None where it stays as it is.
    """

    at: str
    type: str | None = None


@dataclass(frozen=True)
class Plan:
    """Where things are in a record, as the settings say it.

    Attributes:
        text: See `operators.mapping.texts.text_of`.
        identity: `key`, a pointer into the key such as `key/id`, or one into the value.
        metadata: The document's metadata fields.
        timestamp: A pointer; None for the record's own time.
        delete_when: An expression that holds of a record which deletes its document.
        only: An expression that holds of the records which are not passed over.
        markup: What the texts are written in.
    """

    text: str | Sequence[str]
    identity: str = KEY
    metadata: Mapping[str, Field] = field(default_factory=dict)
    timestamp: str | None = None
    delete_when: str | None = None
    only: str | None = None
    markup: str = "none"


class Places:
    """A plan, compiled.

    Args:
        plan: The plan.
        values: Reads keys.

    Attributes:
        text_fields: See `operators.mapping.texts.fields_of`.

    Raises:
        UsageError: A pointer or an expression of it is none.
    """

    def __init__(self, plan: Plan, values: Values) -> None:
        self._values = values
        self._text = text_of(plan.text, MARKUP[plan.markup])
        self.text_fields = fields_of(plan.text)
        self._in_key = plan.identity.startswith(f"{KEY}/")
        self._identity = None
        if plan.identity != KEY:
            self._identity = Pointer(plan.identity.removeprefix(KEY), ID)
        self._metadata = [
            (name, Pointer(one.at, f"{METADATA}.{name}"), one.type)
            for name, one in plan.metadata.items()
        ]
        self._timestamp = None if plan.timestamp is None else Pointer(plan.timestamp, TIMESTAMP)
        self._delete_when = _expression(plan.delete_when, "source.delete_when")
        self._only = _expression(plan.only, "source.filter")

    def is_passed(self, record: object) -> bool:
        """Whether a record is passed over."""
        return self._only is not None and not self._only.holds(record)

    def deletes(self, record: object) -> bool:
        """Whether a record deletes its document."""
        return self._delete_when is not None and self._delete_when.holds(record)

    def identity(self, key: bytes | None, record: object) -> str:
        """The document's id.

        Args:
            key: The record's key.
            record: What its value holds; None where it has none.

        Raises:
            Rejected: There is none.
        """
        if self._identity is None:
            return self._values.identity(key)
        if self._in_key:
            if key is None:
                reject("missing_key", f"the record has no key, and the id is in it ({ID})")
            record = self._values.key(key)
        elif record is None:
            reject("missing_key", f"{self._identity}: the record has no value ({ID})")
        return identity_of(self._identity.need(record, "missing_key"), self._identity)

    def text(self, record: object) -> str:
        """The text to embed.

        Raises:
            Rejected: There is none.
        """
        text = self._text(record)
        if not text or text.isspace():
            reject("no_text", "the text is empty (source.text)")
        return text

    def metadata(self, record: object) -> dict[str, Any]:
        """The metadata, without fields that the record does not have.

        Raises:
            Rejected: A value is none of its type.
        """
        fields: dict[str, Any] = {}
        for name, pointer, kind in self._metadata:
            found = pointer.find(record)
            if found is not None:
                fields[name] = found if kind is None else convert(found, kind, pointer)
        return fields

    def event_time(self, record: object, timestamp: int) -> int:
        """When it happened, in milliseconds since 1970: the record's own time unless it says.

        Raises:
            Rejected: There is nothing, or no time, where it should say.
        """
        if self._timestamp is None:
            return timestamp
        found = self._timestamp.need(record)
        return timestamp if found is None else time_ms(found, self._timestamp)


def _expression(text: str | None, setting: str) -> Expression | None:
    return None if text is None else Expression(text, setting)
