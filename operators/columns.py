"""The metadata fields that the table keeps as typed columns, and the forms that all sinks need."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import orjson

from operators.judging import kind_of, reject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["COLUMN_TYPES", "Columns"]

MAX_FLOAT32: Final = 3.4028234663852886e38


def _string(name: str, value: object) -> str:
    if not isinstance(value, str):
        reject("bad_schema", f"metadata {name!r} must be a string, is {kind_of(value)}")
    return value


def _boolean(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        reject("bad_schema", f"metadata {name!r} must be true or false, is {kind_of(value)}")
    return value


def _float(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        reject("bad_schema", f"metadata {name!r} must be a number, is {kind_of(value)}")
    return float(value)


def _float32(name: str, value: object) -> float:
    number = _float(name, value)
    return math.inf if abs(number) > MAX_FLOAT32 else number


def _integer(bits: int) -> Callable[[str, object], int]:
    limit = 1 << (bits - 1)

    def check(name: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            reject("bad_schema", f"metadata {name!r} must be an integer, is {kind_of(value)}")
        if not -limit <= value < limit:
            reject("bad_schema", f"metadata {name!r} does not fit {bits} bits: {value}")
        return value

    return check


COLUMN_TYPES: Final[Mapping[str, Callable[[str, object], object]]] = {
    "string": _string,
    "bool": _boolean,
    "int32": _integer(32),
    "int64": _integer(64),
    "float32": _float32,
    "float64": _float,
}
"""The types a metadata column can have, and the check that a value of it passes."""


@dataclass(frozen=True)
class Columns:
    """The typed columns.

    Args:
        types: Their types, by the name of the metadata field.
    """

    types: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def none(self) -> tuple[None, ...]:
        """The typed columns of a document that has no metadata."""
        return (None,) * len(self.types)

    def forms(self, fields: Mapping[str, Any] | None) -> tuple[str, str, tuple[Any, ...]]:
        """All metadata as JSON, what no typed column takes as JSON, and the typed columns' values.

        Raises:
            Rejected: A value does not fit its column, or can't be written as JSON.
        """
        if not fields:
            return "{}", "{}", self.none
        typed = tuple([self._value(name, kind, fields) for name, kind in self.types.items()])
        try:
            whole = orjson.dumps(fields).decode()
        except orjson.JSONEncodeError as error:
            reject("bad_schema", f"metadata can't be kept: {error}")
        if not self.types:
            return whole, whole, ()
        rest = {name: value for name, value in fields.items() if name not in self.types}
        return whole, orjson.dumps(rest).decode() if rest else "{}", typed

    @staticmethod
    def _value(name: str, kind: str, fields: Mapping[str, Any]) -> object:
        value = fields.get(name)
        if value is None:
            return None
        value = COLUMN_TYPES[kind](name, value)
        if isinstance(value, float) and not math.isfinite(value):
            reject("not_finite", f"metadata {name!r} is no finite number")
        return value
