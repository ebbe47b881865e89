"""Documents of the change events that a real Debezium wrote, by mappings of several kinds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from harness.debezium import PLAIN, RECORDED, TYPED
from operators.mapping import ChangeDecoder, Field, Plan
from operators.records import Kind

if TYPE_CHECKING:
    from operators.records import Document


def documents(name: str, table: str, plan: Plan, **columns: str) -> list[Document]:
    """What the events of a table become, in their order."""
    decoder = ChangeDecoder(columns, plan=plan)
    lines = (RECORDED / f"{name}.ndjson").read_text(encoding="utf-8").splitlines()
    return [
        decoder.decode(_bytes(one["key"]), _bytes(one["value"]), (), 7)
        for one in map(json.loads, lines)
        if one["topic"].endswith(f".{table}")
    ]


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def kinds(found: list[Document]) -> str:
    """The kinds by their first letters, dead letters as `X`."""
    return "".join("X" if one.kind is Kind.DEAD else one.kind.name[0] for one in found)


def said(document: Document) -> tuple[str, str]:
    """Of a dead letter the code, and of what it says the first words."""
    assert document.dead is not None
    return document.dead.code, document.dead.message.partition(":")[0]


PRODUCTS = Plan("{/title}. {/description?}", metadata={"active": Field("/active", "bool")})


def test_each_event_is_a_document_of_its_row() -> None:
    """Snapshot, inserts, updates; each deletion twice, as event and as null value."""
    found = documents(PLAIN, "products", PRODUCTS, active="bool")
    assert kinds(found) == "UUUUUDDUDDUU"
    assert [one.id for one in found] == [*"12311", "2", "2", "20", "3", "3", "3", "4"]
    assert found[3].text == "Oak armchair. A chair of solid oak."
    assert (found[3].typed, found[4].typed) == ((True,), (False,))
    assert {one.event_time for one in found} == {7}


@pytest.mark.parametrize("name", [PLAIN, TYPED])
def test_composite_keys_and_schemas(name: str) -> None:
    """The id is the same of both events of a changed key's row, with schemas and without."""
    found = documents(name, "lines", Plan("/text"))
    assert kinds(found).rstrip("X") == "UUUUDDUDD"
    moved = found[4:7]
    old, new = '{"line":2,"order":7}', '{"line":2,"order":9}'
    assert [(one.kind, one.id) for one in moved] == [
        (Kind.DELETE, old),
        (Kind.DELETE, old),
        (Kind.UPSERT, new),
    ]


def test_a_truncate_is_a_dead_letter() -> None:
    """It names no rows."""
    last = documents(PLAIN, "lines", Plan("/text"))[-1]
    assert said(last) == ("bad_schema", "op 't'")


def test_a_table_without_primary_key_is_dead_letters() -> None:
    """They say why."""
    [found] = documents(PLAIN, "logs", Plan("/line"))
    assert said(found) == ("missing_key", "the record has no key")


def test_what_tells_of_no_row_is_passed_over() -> None:
    """Heartbeats, transactions and messages, whatever their keys are."""
    for topic in ("plain", "transaction", "message"):
        assert set(kinds(documents(PLAIN, topic, PRODUCTS))) == {"S"}


ARTICLES = {
    "large text alone": (Plan("/body", metadata={"price": Field("/price", "int32")}), "UPUDDX"),
    "template of it alone": (Plan("About {/body}."), "UPUDDX"),
    "list of large ones": (Plan(["/body", "/more"]), "UPUDDX"),
    "with a small one": (Plan("{/title}: {/body}"), "UXUDDX"),
    "optional": (Plan("{/title}{/body?}"), "UXUDDX"),
    "expression": (Plan("jmespath: body"), "UXUDDX"),
    "another column": (Plan("/title"), "UUUDDU"),
    "as metadata": (Plan("/title", metadata={"more": Field("/more")}), "UXUDDU"),
    "all of it": (Plan("/title", metadata={"row": Field("")}), "UXXDDX"),
    "as condition": (Plan("/title", delete_when="body == 'x'"), "UXUDDX"),
    "as filter": (Plan("/title", only="length(body) > `0`"), "UXUDDX"),
}
"""What becomes of an insert, an update of the price, one of `body` and `more`, and the three events
of a changed key, of which the last carries no large value."""


@pytest.mark.parametrize(("plan", "wanted"), ARTICLES.values(), ids=ARTICLES)
def test_large_values_that_are_not_carried(plan: Plan, wanted: str) -> None:
    """A text that was not touched stays; whatever else asks for such a value is a dead letter."""
    found = documents(PLAIN, "articles", plan)
    assert kinds(found) == wanted
    for one in found:
        assert "__debezium" not in str(one[:-1])
        if one.dead:
            code, message = one.dead.code, one.dead.message
            assert code == "bad_schema"
            assert "REPLICA IDENTITY FULL" in message or "metadata can't be kept" in message


def test_only_the_metadata_is_taken_of_an_untouched_text() -> None:
    """The new price is there, without a text to embed."""
    plan, _ = ARTICLES["large text alone"]
    found = documents(PLAIN, "articles", plan, price="int32")
    assert (found[1].text, found[1].typed) == (None, (2,))


def event(operation: str, **row: Any) -> bytes:
    """An event as it is written without schemas."""
    return json.dumps({"op": operation, "before": None, "after": row}).encode()


@pytest.mark.parametrize(
    ("operation", "wanted"), [("c", Kind.SKIP), ("r", Kind.SKIP), ("u", Kind.DELETE)]
)
def test_the_filter_chooses_rows(operation: str, wanted: Kind) -> None:
    """A row that an update takes out of it is deleted; one that was never in it is passed over."""
    decoder = ChangeDecoder(plan=Plan("/t", only="public"))
    key = b'{"id": 1}'
    assert decoder.decode(key, event(operation, t="x", public=False), (), 0).kind is wanted
    assert decoder.decode(key, event(operation, t="x", public=True), (), 0).kind is Kind.UPSERT


def test_a_condition_deletes() -> None:
    """As a column that marks a row as deleted."""
    decoder = ChangeDecoder(plan=Plan("/t", delete_when="gone"))
    found = decoder.decode(b'{"id": 1}', event("u", t="x", gone=True), (), 0)
    assert (found.kind, found.id) == (Kind.DELETE, "1")


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (b"Struct{id=1}", event("c", t="x"), "bad_json"),
        (b'{"id": null}', event("c", t="x"), "bad_key"),
        (None, None, "missing_key"),
        (b'{"id": 1}', b"{", "bad_json"),
        (b'{"id": 1}', b"[]", "bad_schema"),
        (b'{"id": 1}', event("c", t=" "), "no_text"),
    ],
)
def test_what_is_no_event_of_a_row(key: bytes | None, value: bytes | None, code: str) -> None:
    """Each has its code."""
    found = ChangeDecoder(plan=Plan("/t")).decode(key, value, (), 0)
    assert found.dead is not None
    assert found.dead.code == code


def test_a_null_value_deletes() -> None:
    """With the event before it gone by compaction, it is all that tells of a deletion."""
    for value in (None, b"null", b'{"schema": null, "payload": null}'):
        found = ChangeDecoder(plan=Plan("/t")).decode(b'{"id": 1}', value, (), 0)
        assert (found.kind, found.id) == (Kind.DELETE, "1")
