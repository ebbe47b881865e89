from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given

from flows.settings import FIXED_COLUMNS
from operators.guess import Form, guess, read
from operators.mapping import ChangeDecoder, MappedDecoder, Plan
from operators.records import Kind
from tests.integration.unlike import topics
from tests.operators.guess.samples import batch, json_batch
from tests.operators.guess.test_fields import ROWS

if TYPE_CHECKING:
    from operators.guess import Proposal
    from operators.records import DocumentBatch, RecordBatch
    from tests.integration.unlike import Unlike


def decoded(proposal: Proposal, records: RecordBatch) -> DocumentBatch:
    """Records as the mapping that is proposed reads them."""
    assert proposal.text is not None
    assert proposal.id is not None
    plan = Plan(
        proposal.text,
        proposal.id,
        proposal.metadata,
        proposal.timestamp,
        proposal.delete_when,
        proposal.only,
        proposal.markup,
    )
    types = {name: one.type for name, one in proposal.metadata.items() if one.type}
    decoder = ChangeDecoder if proposal.form is Form.DEBEZIUM else MappedDecoder
    return decoder(types, 900_000, plan=plan)(records)


@pytest.mark.parametrize(
    "topic", [one for one in topics() if one.name != "own"], ids=lambda topic: topic.name
)
def test_unlike_topics(topic: Unlike) -> None:
    """What is proposed for a topic reads all of its records, and makes just its documents."""
    records = batch(topic.records)
    found = decoded(guess(read([records]), FIXED_COLUMNS), records)
    assert not found.dead
    texts: dict[str, str] = {}
    for kind, identity, text in zip(found.kinds, found.ids, found.texts, strict=True):
        if kind is Kind.UPSERT:
            texts[identity] = text or ""
        elif kind is Kind.DELETE:
            texts.pop(identity, None)
    assert texts.keys() == topic.ids
    identity, word = topic.sample
    assert word in texts[identity]


def test_own_form_needs_no_mapping() -> None:
    """For records of Headrace's own form only columns are proposed."""
    records = json_batch({"text": "a", "metadata": {"n": 1}}, {"text": "b"}, keys=[b"1", b"2"])
    found = guess(read([records]), FIXED_COLUMNS)
    assert found.form is Form.OWN
    assert found.text is None
    assert found.columns == {"n": "int64"}


def test_deletions_pass_the_filter() -> None:
    """A record that deletes is not passed over for having no text."""
    records = json_batch(
        {"id": "a", "title": "A chair of oak", "deleted": False},
        {"id": "b", "deleted": False},
        {"id": "a", "deleted": True},
    )
    found = decoded(guess(read([records])), records)
    assert list(found.kinds) == [Kind.UPSERT, Kind.SKIP, Kind.DELETE]


@given(ROWS)
def test_any_records(rows: list[dict[str, Any]]) -> None:
    """Whatever the records are, what is proposed is a mapping, and none dies of a wrong type."""
    records = json_batch(*rows)
    proposal = guess(read([records]), FIXED_COLUMNS)
    if proposal.form is Form.JSON and proposal.text is not None and proposal.id is not None:
        found = decoded(proposal, records)
        assert not {dead.code for dead in found.dead.values()} - {"no_text", "missing_key"}
