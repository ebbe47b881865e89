"""Values as one of the types that a metadata column can have."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import orjson

from operators.judging import reject, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from operators.pointer import Pointer

__all__ = ["CONVERSIONS", "convert"]


def _string(found: Any) -> str:  # noqa: ANN401 - any JSON value, here and below
    return found if isinstance(found, str) else orjson.dumps(found).decode()


def _boolean(found: Any) -> bool:  # noqa: ANN401
    words = {"true": True, "false": False, "t": True, "f": False, "1": True, "0": False}
    if isinstance(found, bool):
        return found
    return words[str(found).lower()]


def _integer(found: Any) -> int:  # noqa: ANN401
    if isinstance(found, bool) or not isinstance(found, int | float | str):
        raise TypeError
    number = int(found) if isinstance(found, str) else found
    if number != int(number):
        raise ValueError
    return int(number)


def _number(found: Any) -> float:  # noqa: ANN401
    if isinstance(found, bool) or not isinstance(found, int | float | str):
        raise TypeError
    number = float(found)
    if not math.isfinite(number):
        raise ValueError
    return number


CONVERSIONS: Final[Mapping[str, Callable[[Any], object]]] = {
    "string": _string,
    "bool": _boolean,
    "int32": _integer,
    "int64": _integer,
    "float32": _number,
    "float64": _number,
}
"""How a value becomes one of a column's type: a number may be written as text, as decimals are."""


def convert(found: object, kind: str, pointer: Pointer) -> object:
    """A value as one of a type.

    Raises:
        Rejected: It can't be one.
    """
    try:
        return CONVERSIONS[kind](found)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        told = shown(found)
        reject("bad_schema", f"{pointer}: can't be {kind}: {told} ({pointer.setting})")
