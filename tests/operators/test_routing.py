"""Which table a record names, and which names are none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import UsageError
from operators.documents import Decoder
from operators.judging import Rejected
from operators.mapping import MappedDecoder, Plan
from operators.records import Kind, Lane, RecordBatch
from operators.routing import LONGEST, RESERVED, TABLE, Route, directory_name, is_template

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."


def batch(*values: dict[str, Any] | None) -> RecordBatch:
    """Records, each with a key of its own."""
    held = [None if value is None else json.dumps(value).encode() for value in values]
    number = len(held)
    keys = [b"%d" % one for one in range(number)]
    lane = Lane("t", 0)
    return RecordBatch(lane, 0, number, range(number), [7] * number, keys, held, [()] * number)


@pytest.mark.parametrize(
    ("template", "record", "name"),
    [
        ("docs_{/tenant}", {"tenant": "acme"}, "docs_acme"),
        ("{/a/b}.{/c}", {"a": {"b": "x-Y"}, "c": 7}, "x-Y.7"),
        ("{/tenants/0}", {"tenants": ["a", "b"]}, "a"),
    ],
)
def test_names(template: str, record: object, name: str) -> None:
    """A name is the template's own words and what the record has in their places."""
    route = Route(template)
    assert route(record) == name
    assert route.makes(name)
    assert is_template(template)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({}, "/tenant: nothing is there (table.name)"),
        ({"tenant": None}, "/tenant: nothing is there (table.name)"),
        ({"tenant": ""}, "/tenant: '' can't be in a table's name"),
        ({"tenant": "a/../b"}, "/tenant: 'a/../b' can't be in a table's name"),
        ({"tenant": "a b"}, "/tenant: 'a b' can't be"),
        ({"tenant": "é"}, "/tenant: 'é' can't be"),
        ({"tenant": "a\n"}, "/tenant: 'a\\n' can't be"),
        ({"tenant": True}, "/tenant: must be text or an integer, is a boolean"),
        ({"tenant": 1.5}, "/tenant: must be text or an integer, is a number"),
        ({"tenant": ["a"]}, "/tenant: must be text or an integer, is an array"),
        ({"tenant": "a" * LONGEST}, "table.name: docs_aaaa"),
    ],
)
def test_what_names_no_table(record: object, told: str) -> None:
    """What can't be the name of a table is told by its pointer."""
    with pytest.raises(Rejected) as fault:
        Route("docs_{/tenant}")(record)
    assert fault.value.code == "bad_schema"
    assert fault.value.message.startswith(told)


def test_names_of_its_own_tables() -> None:
    """No record can name the directory or the aliases."""
    with pytest.raises(Rejected, match="Headrace's own"):
        Route("{/tenant}")({"tenant": f"{RESERVED}aliases"})
    with pytest.raises(UsageError, match="Headrace's own"):
        Route("_headrace_{/tenant}")


@given(found=st.text(max_size=260) | st.integers() | st.none() | st.lists(st.text()))
def test_any_name_is_one_folder(found: object) -> None:
    """Whatever a record says, its name has only the characters of names, or there is none."""
    try:
        name = Route("t_{/x}")({"x": found})
    except Rejected:
        return
    assert set(name) <= set(LETTERS)
    assert 2 < len(name) <= LONGEST
    assert name.startswith("t_")


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("docs_{tenant}", "is no JSON pointer"),
        ("docs_{/tenant", "a brace stands alone"),
        ("docs_{/tenant?}", "can't be optional"),
        ("docs {/tenant}", "a name has letters"),
        ("a/{/tenant}", "a name has letters"),
        ("docs_{{x}}", "names no place"),
    ],
)
def test_templates_that_are_none(template: str, told: str) -> None:
    """A template is refused at once where no record could make a name of it."""
    with pytest.raises(UsageError, match=rf"^table\.name: .*{told}"):
        Route(template)


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("docs_{/a}", "docs_{/b}", True),
        ("docs_{/a}", "docs_x_{/b}", True),
        ("docs_{/a}", "logs_{/a}", False),
        ("{/a}_docs", "x_{/b}", True),
        ("{/a}_docs", "{/a}_logs", False),
    ],
)
def test_templates_that_meet(one: str, other: str, meet: bool) -> None:
    """Two templates meet if one name could be made by both."""
    assert Route(one).meets(Route(other)) is meet
    assert Route(other).meets(Route(one)) is meet


def test_directories() -> None:
    """The directory's name is one of Headrace's own, tells whose it is, and is no other's."""
    assert directory_name("docs_{/tenant}").startswith("_headrace_directory-docs_-tenant-")
    names = {directory_name(one) for one in ("{/a/b}", "{/a}-{/b}", "{/a}{/b}", "{/a~1b}")}
    assert len(names) == 4
    assert len(directory_name("{/" + "a" * 5000 + "}")) < 100


def test_records_of_its_own_form() -> None:
    """The name comes with the typed columns; deletions have none, and no dead letter has one."""
    decode = Decoder({"price": "float64"}, route=Route("docs_{/metadata/tenant}"))
    found = decode(
        batch(
            {"text": "a", "metadata": {"tenant": "x", "price": 1}},
            {"metadata": {"tenant": "y"}},
            None,
            {"text": "a"},
            {"text": "a", "metadata": {"tenant": "x y"}},
        )
    )
    assert found.metadata.typed[TABLE] == ("docs_x", "docs_y", None, None, None)
    assert found.metadata.typed["price"] == (1.0, None, None, None, None)
    assert found.kinds == (Kind.UPSERT, Kind.PATCH, Kind.DELETE, Kind.DEAD, Kind.DEAD)
    assert [found.dead[index].code for index in (3, 4)] == ["bad_schema"] * 2
    assert found.dead[3].message == "/metadata/tenant: nothing is there (table.name)"


def test_mapped_records() -> None:
    """Of a mapped record any place can name the table, whether or not it is metadata."""
    plan = Plan("/title", delete_when="gone", only="lang == 'en'")
    decode = MappedDecoder(plan=plan, route=Route("docs_{/tenant}"))
    found = decode(
        batch(
            {"title": "a", "tenant": "x", "lang": "en"},
            {"title": "a", "gone": True, "lang": "en"},
            {"title": "a"},
            {"title": "a", "lang": "en"},
        )
    )
    assert found.metadata.typed[TABLE] == ("docs_x", None, None, None)
    assert found.kinds == (Kind.UPSERT, Kind.DELETE, Kind.SKIP, Kind.DEAD)
    assert found.dead[3].message == "/tenant: nothing is there (table.name)"


def test_one_table_has_no_further_column() -> None:
    """Without a template nothing of it is in what flows."""
    assert TABLE not in Decoder()(batch({"text": "a"})).metadata.typed
