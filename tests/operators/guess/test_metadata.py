from __future__ import annotations

from typing import Any

import pytest

from operators.guess.fields import fields_of
from operators.guess.metadata import guess_columns, guess_metadata
from operators.mapping import Field as Place
from tests.operators.guess.samples import field


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("bot", (True, False), "bool"),
        ("count", (1, 2), "int64"),
        ("price", (1, 2), "float64"),
        ("big", (1 << 63, 1), "float64"),
        ("half", (1, 0.5), "float64"),
        ("price", ("12.50", "7"), "float64"),
        ("zip", ("01234", "7"), "string"),
        ("color", ("red", "blue"), "string"),
    ],
)
def test_types(name: str, values: tuple[Any, ...], kind: str) -> None:
    """A column's type takes all that is there, and what measures may be next."""
    assert guess_metadata([field(name, *values)], (), ()) == {name: Place(f"/{name}", kind)}


@pytest.mark.parametrize(
    "values",
    [
        ("same", "same"),
        ("x" * 200, "y"),
        ("http://a.b/c", "d"),
        ("QUI=", "QUJD"),
        ([1], [2]),
        (1, "a"),
    ],
)
def test_what_is_not_worth_it(values: tuple[Any, ...]) -> None:
    """Constants, long texts, addresses, bytes, lists and mixtures are left out."""
    assert guess_metadata([field("a", *values)], (), ()) == {}


def test_names() -> None:
    """Names are those of columns, none twice, none taken, with what stands around where needed."""
    rows: list[dict[str, Any]] = [
        {"CreatedBy": f"a{n}", "model": f"m{n}", "user": {"id": n}, "repo": {"id": n}, "1st": n}
        for n in range(2)
    ]
    found = guess_metadata(fields_of(rows), (), {"model"})
    assert set(found) == {"created_by", "record_model", "user_id", "repo_id", "field_1st"}


def test_columns_of_own_metadata() -> None:
    """Metadata that has names already gets columns for those that can be one, as they are."""
    rows = [{"kind": "a", "price": "1.5", "n": 1, "id": 1, "a-b": 2}, {"kind": "b", "n": 2}]
    assert guess_columns(fields_of(rows), {"id"}) == {"kind": "string", "n": "int64"}
