"""Conditions that users give in SQL: a predicate on the table's columns, and nothing else.

The text is parsed, each node of it must be one of those that a condition needs, and what goes on
to Lance is written anew from the tree. So nothing that two parsers might read in two ways gets
through: no comment, statement, subquery or unbalanced bracket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from sqlglot import exp, tokens
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import SqlglotError

from sinks.errors import FilterError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["MAX_CHARACTERS", "predicate"]

MAX_CHARACTERS: Final = 4096
MAX_NODES: Final = 2000
MAX_DEPTH: Final = 64
"""Of brackets and operators within each other; Lance's parser goes down as far on its own stack."""

_COMPARED: Final = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.In, exp.Between)
_MATCHED: Final = (exp.Like, exp.ILike, exp.Escape, exp.Is)
_JOINED: Final = (exp.And, exp.Or, exp.Not, exp.Paren)
_NAMED: Final = (exp.Column, exp.Identifier)
_CONSTANT: Final = (exp.Literal, exp.Boolean, exp.Null, exp.Neg, exp.Cast, exp.DataType)
_FUNCTIONS: Final = (
    *(exp.Lower, exp.Upper, exp.Length),
    *(exp.StartsWith, exp.EndsWith, exp.Contains, exp.RegexpLike),
)
_ALLOWED: Final = frozenset(
    {*_COMPARED, *_MATCHED, *_JOINED, *_NAMED, *_CONSTANT, *_FUNCTIONS},
)

_PROBE: Final = "`"
"""Marks a name in Lance's SQL, where double quotes stand around text."""


class _LanceSQL(Dialect):
    """How Lance writes strings and names; it knows no comments, so none is understood."""

    class Tokenizer(tokens.Tokenizer):
        QUOTES: ClassVar[list[str | tuple[str, str]]] = ["'"]
        IDENTIFIERS: ClassVar[list[str | tuple[str, str]]] = [_PROBE]
        COMMENTS: ClassVar[list[str | tuple[str, str]]] = []


def predicate(text: str, columns: Collection[str]) -> str:
    """A condition as Lance may be given it, written anew.

    Args:
        text: The condition, in SQL.
        columns: The columns that it may name.

    Raises:
        FilterError: It is anything but a predicate, or names another column.
    """
    if len(text) > MAX_CHARACTERS:
        raise FilterError(f"{len(text)} characters, more than {MAX_CHARACTERS}")
    if any(c < " " and c not in "\t\n\r" for c in text):
        raise FilterError("has a control character")
    tree = _parsed(text)
    _check(tree, {name.lower() for name in columns})
    return tree.sql(dialect=_LanceSQL, comments=False)


def _parsed(text: str) -> exp.Expression:
    try:
        found = [part for part in _LanceSQL().parse(text) if part is not None]
    except SqlglotError as error:
        raise FilterError(f"can't be read: {_reason(error)}") from error
    except RecursionError as error:
        raise FilterError("brackets within brackets, too many") from error
    if len(found) != 1 or not isinstance(found[0], exp.Expression):
        raise FilterError("must be one condition" if found else "is empty")
    return found[0]


def _reason(error: SqlglotError) -> str:
    """What the parser says, in one line without the marks by which it shows the place."""
    told = getattr(error, "errors", None)
    text = str(told[0]["description"] if told else error).splitlines()[0]
    if text.startswith("Error tokenizing"):
        return "a quote is not closed"
    return "something is missing" if "missing for" in text else text.rstrip(".")


def _check(tree: exp.Expression, columns: Collection[str]) -> None:
    for number, node in enumerate(tree.walk()):
        if number > MAX_NODES:
            raise FilterError(f"has more than {MAX_NODES} parts")
        if type(node) not in _ALLOWED:
            raise FilterError(f"{_shown(node)}: is not allowed in a condition")
        if node.depth > MAX_DEPTH:
            raise FilterError(f"goes more than {MAX_DEPTH} levels deep")
        if isinstance(node, exp.Column):
            _check_column(node, columns)
        elif isinstance(node, exp.Cast | exp.Neg) and not isinstance(node.this, exp.Literal):
            # Of a column that fails or not row by row, in the middle of a search.
            raise FilterError(f"{_shown(node)}: only a constant can be cast or negated")


def _check_column(node: exp.Column, columns: Collection[str]) -> None:
    if len(node.parts) != 1 or node.name.lower() not in columns:
        known = ", ".join(sorted(columns))
        raise FilterError(f"{_shown(node)}: there is no such column; there are {known}")


def _shown(node: exp.Expr) -> str:
    try:
        text = node.sql(dialect=_LanceSQL, comments=False)
    except (SqlglotError, RecursionError):
        return type(node).__name__
    return text if len(text) <= 80 else f"{text[:80]}…"
