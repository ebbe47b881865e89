from __future__ import annotations

import pytest

from operators.columns import COLUMN_TYPES
from operators.judging import Rejected
from operators.mapping.convert import CONVERSIONS, convert
from operators.pointer import Pointer

POINTER = Pointer("/price", "source.metadata.price")


def test_every_type() -> None:
    """Each type that a column can have has a conversion."""
    assert set(CONVERSIONS) == set(COLUMN_TYPES)


@pytest.mark.parametrize(
    ("found", "kind", "value"),
    [
        ("49.90", "float64", 49.9),
        (5, "float64", 5.0),
        ("5", "int64", 5),
        (5.0, "int32", 5),
        ("true", "bool", True),
        ("F", "bool", False),
        (0, "bool", False),
        (5, "string", "5"),
        ({"a": [1]}, "string", '{"a":[1]}'),
        ("x", "string", "x"),
    ],
)
def test_converts(found: object, kind: str, value: object) -> None:
    """A value becomes one of the type where nothing of it is lost."""
    made = convert(found, kind, POINTER)
    assert made == value
    assert type(made) is type(value)


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        ("x", "float64"),
        ("nan", "float64"),
        (True, "float64"),
        ("1.5", "int64"),
        (1.5, "int64"),
        (True, "int64"),
        ([], "int64"),
        ("maybe", "bool"),
        (2, "bool"),
        ({}, "float32"),
        (float("inf"), "int64"),
    ],
)
def test_refuses(found: object, kind: str) -> None:
    """What can't be one of the type is a dead letter that names pointer and setting."""
    with pytest.raises(Rejected, match=rf"^/price: can't be {kind}.*source\.metadata\.price"):
        convert(found, kind, POINTER)
