"""Conditions: what gets through, and that it means what it says."""

from __future__ import annotations

import lance
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sinks.errors import FilterError
from sinks.filters import MAX_CHARACTERS, predicate

COLUMNS = ("price", "name", "in_stock")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("price < 20", "price < 20"),
        ("Price>=-1.5e3", "Price >= -1.5e3"),
        ("name = 'it''s'", "name = 'it''s'"),
        ("name IN ('a', 'b') AND NOT in_stock", "name IN ('a', 'b') AND NOT in_stock"),
        ("`name` IS NOT NULL", "NOT `name` IS NULL"),
        ("price BETWEEN 1 AND 2 OR name ILIKE 'a%'", "price BETWEEN 1 AND 2 OR name ILIKE 'a%'"),
        ("lower(name) = 'x' and starts_with(name, 'y')", None),
        ("name != 'a -- b; /* c */'", "name <> 'a -- b; /* c */'"),
        ("(price = 1\n OR price = 2)", "(price = 1 OR price = 2)"),
    ],
)
def test_predicates(text: str, written: str | None) -> None:
    """A predicate gets through, written anew."""
    assert predicate(text, COLUMNS) == written or written is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "price <",
        "price = 'a",
        "no_such < 3",
        "deleted",
        "documents.price = 1",
        "price = 1) OR (price = 2",
        "price = 1; DROP TABLE documents",
        "price = 1 -- and more",
        "price = 1 /* and more */",
        "price IN (SELECT 1)",
        "EXISTS (SELECT 1)",
        "SELECT 1",
        "price = 1 UNION SELECT 2",
        "price = (SELECT 1)",
        '"price" = 1',
        "price / 0 = 1",
        "price + 1 = 2",
        "CAST(name AS INT) = 1",
        "-price < 1",
        "random() < 1",
        "load_extension(name)",
        "price = @x",
        "price = ?",
        "price = :x",
        "name || 'x' = 'y'",
        "CASE WHEN price = 1 THEN in_stock END",
        "price = 1 AS x",
        "*",
        "price\x00 = 1",
        "name = 'a\x1b'",
        "(" * 5000 + "price = 1" + ")" * 5000,
        "(" * 900 + "price = 1" + ")" * 900,
        "NOT " * 900 + "in_stock",
        "price = " + "1" * MAX_CHARACTERS,
    ],
)
def test_anything_else(text: str) -> None:
    """Whatever is not a predicate on the columns is refused, in one line."""
    with pytest.raises(FilterError) as caught:
        predicate(text, COLUMNS)
    assert "\n" not in str(caught.value)


values = st.one_of(
    st.integers(-(10**12), 10**12).map(str),
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(lambda f: f"{f:.3f}"),
)
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12).map(
    lambda t: "'" + t.replace("'", "''") + "'"
)
atoms = st.one_of(
    st.builds("price {} {}".format, st.sampled_from(["<", "<=", "=", "<>", "!=", ">"]), values),
    st.builds("name {} {}".format, st.sampled_from(["=", "<>", "LIKE", "NOT LIKE"]), texts),
    st.builds("name IN ({}, {})".format, texts, texts),
    st.builds("price BETWEEN {} AND {}".format, values, values),
    st.sampled_from(["in_stock", "NOT in_stock", "name IS NULL", "name IS NOT NULL"]),
)
conditions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds("({}) AND {}".format, inner, inner),
        st.builds("{} OR ({})".format, inner, inner),
        st.builds("NOT ({})".format, inner),
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> lance.LanceDataset:
    """Some rows with those columns."""
    rows = [
        {"price": float(p), "name": n, "in_stock": s}
        for p in (-5, 0, 3, 1000)
        for n in ("a", "it's", "", "%", None)
        for s in (True, False, None)
    ]
    path = tmp_path_factory.mktemp("filters") / "t.lance"
    return lance.write_dataset(pa.Table.from_pylist(rows), str(path))


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(text=conditions)
def test_meaning_is_kept(dataset: lance.LanceDataset, text: str) -> None:
    """What Lance is given selects the rows that the condition as it came would select."""
    written = predicate(text, COLUMNS)
    assert dataset.to_table(filter=written) == dataset.to_table(filter=text)
    assert predicate(written, COLUMNS) == written


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=40)
    | st.lists(
        st.sampled_from(
            [
                *("price", "name", "deleted", "1", "'a'", "(", ")", "'", "''", "`", '"', "\\"),
                *("--", "/*", "*/", ";", ",", "\n", "=", "OR", "AND", "NOT", "IN", "LIKE"),
                *("SELECT", "UNION"),
            ]
        ),
        max_size=12,
    ).map(" ".join)
)
@example("1 = 1 OR price")
@example("'a' 'b'")
def test_random_text(text: str) -> None:
    """Whatever text comes, it is refused in one line, or is one balanced predicate."""
    try:
        written = predicate(text, COLUMNS)
    except FilterError as error:
        lines = str(error).splitlines()
    else:
        lines = []
        assert predicate(f"NOT ({written})", COLUMNS) == f"NOT ({written})"
    assert len(lines) <= 1
