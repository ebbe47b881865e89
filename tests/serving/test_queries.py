"""Queries of a table: what they are made of, and that they wait before the model is asked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from serving.models import Position, SearchBody
from serving.problems import ProblemError
from serving.queries import Queries
from sinks.errors import SinkError
from tests.samples import LANE, encoded
from tests.serving.services import FakeModel
from tests.serving.test_vectors import vectors_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sinks.search import Query

AFTER = Position(topic=LANE.topic, partition=LANE.partition, offset=3)


def query(
    model: FakeModel, progress: Callable[[], Mapping[str, int]] = dict, **asked: Any
) -> Query:
    """The query of a search."""
    queries = Queries(progress, vectors_of(model), (LANE.topic,), 0.2)
    try:
        return asyncio.run(queries.query(SearchBody(**{"query": "flour", **asked})))
    finally:
        queries.close()


def test_what_is_asked() -> None:
    """A query has all that the search says, and the vector of its words."""
    made = query(FakeModel(), k=3, offset=2, mode="hybrid", filter="tokens > 1")
    assert (made.k, made.offset, made.mode, made.text) == (3, 2, "hybrid", "flour")
    assert made.where == "tokens > 1"
    assert made.vector is not None
    np.testing.assert_array_equal(made.vector, encoded("flour").vectors[0])


def test_words_need_no_model() -> None:
    """A search by words alone has no vector, and asks the model for none."""
    model = FakeModel()
    assert query(model, mode="text").vector is None
    assert model.calls == []


def test_waits_first() -> None:
    """The model is asked once the table has the record, and not at all if it never comes."""
    model, seen = FakeModel(), iter((2, 3, 4))

    def progress() -> Mapping[str, int]:
        assert model.calls == []
        return {LANE.key: next(seen)}

    query(model, progress, after=AFTER)
    assert model.calls == [["flour"]]
    with pytest.raises(ProblemError) as late:
        query(model, lambda: {LANE.key: 3}, after=AFTER)
    assert (late.value.status_code, late.value.problem.code) == (504, "not_yet")
    assert len(model.calls) == 1


def test_a_record_that_never_comes() -> None:
    """A record of another topic is refused at once; a table that can't be read says so."""
    with pytest.raises(ProblemError) as other:
        query(FakeModel(), after=AFTER.model_copy(update={"topic": "views"}))
    assert (other.value.status_code, other.value.problem.code) == (422, "bad_after")

    def away() -> Mapping[str, int]:
        raise SinkError("table.uri: away")

    with pytest.raises(SinkError, match="away"):
        query(FakeModel(), away, after=AFTER)
