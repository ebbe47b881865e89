"""The text to embed: a template, a list of places, or an expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from headrace.errors import UsageError
from operators.judging import kind_of, reject
from operators.mapping.expression import Expression
from operators.pointer import Pointer
from operators.template import template_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["SETTING", "fields_of", "plain_text", "text_of"]

SETTING: Final = "source.text"
EXPRESSION: Final = "jmespath:"
"""What stands before an expression."""


def plain_text(found: object, place: object) -> str:
    """A value as text: strings as they are, numbers as JSON has them, lists with commas between.

    Args:
        found: The value.
        place: Where it is, for the error.

    Raises:
        Rejected: It is an object, or a list that holds one.
    """
    if isinstance(found, str):
        return found
    if found is None:
        return ""
    if isinstance(found, bool | int | float):
        return orjson.dumps(found).decode()
    if not isinstance(found, list):
        reject("bad_schema", f"{place}: must be text, a number or a list, is {kind_of(found)}")
    return ", ".join([_entry(one, place) for one in found if one is not None])


def text_of(source: str | Sequence[str], markup: Callable[[str], str]) -> Callable[[object], str]:
    """What makes the text of a record.

    Args:
        source: A template such as `{/title}. {/body?}`; or pointers, whose texts stand on lines of
            their own; or a JMESPath expression behind `jmespath:`.
        markup: Makes plain text of each value.

    Raises:
        UsageError: It is none of them.
    """
    if not isinstance(source, str):
        return _lines([_pointer(text) for text in source], markup)
    if source.startswith(EXPRESSION):
        return _expression(Expression(source.removeprefix(EXPRESSION).strip(), SETTING), markup)
    if not source:
        raise UsageError(f"{SETTING}: is empty; it names no place in a record, as /title does")
    if "{" not in source and "}" not in source:
        return _template([_pointer(source)], markup)
    return _template(template_parts(source, SETTING), markup)


def fields_of(source: str | Sequence[str]) -> frozenset[str] | None:
    """The fields of a record that its text is made of; None where an expression makes it.

    Args:
        source: As `text_of` takes it.
    """
    if not isinstance(source, str):
        pointers = [_pointer(text) for text in source]
    elif source.startswith(EXPRESSION):
        return None
    elif "{" not in source and "}" not in source:
        pointers = [_pointer(source)]
    else:
        pointers = [part for part in template_parts(source, SETTING) if isinstance(part, Pointer)]
    return frozenset(pointer.field for pointer in pointers)


def _entry(found: object, place: object) -> str:
    if isinstance(found, list):
        reject("bad_schema", f"{place}: holds an array in an array, which is no text")
    return plain_text(found, place)


def _pointer(text: str) -> Pointer:
    return Pointer(text, SETTING)


def _template(
    parts: Sequence[str | Pointer], markup: Callable[[str], str]
) -> Callable[[object], str]:
    def make(record: object) -> str:
        found = [
            part
            if isinstance(part, str)
            else markup(plain_text(part.need(record, "no_text"), part))
            for part in parts
        ]
        # Its own words alone are no text of the record.
        if not any(text and part is not text for part, text in zip(parts, found, strict=True)):
            _nothing(parts)
        return "".join(found).strip()

    return make


def _lines(pointers: Sequence[Pointer], markup: Callable[[str], str]) -> Callable[[object], str]:
    if not pointers:
        raise UsageError(f"{SETTING}: names no place in a record, as /title does")

    def make(record: object) -> str:
        found = [markup(plain_text(pointer.find(record), pointer)).strip() for pointer in pointers]
        lines = [line for line in found if line]
        if not lines:
            _nothing(pointers)
        return "\n".join(lines)

    return make


def _nothing(parts: Sequence[str | Pointer]) -> None:
    places = ", ".join(str(part) for part in parts if isinstance(part, Pointer))
    reject("no_text", f"{places}: no text is there ({SETTING})")


def _expression(expression: Expression, markup: Callable[[str], str]) -> Callable[[object], str]:
    def make(record: object) -> str:
        found: Any = expression.evaluate(record)
        return markup(plain_text(found, expression.text)).strip()

    return make
