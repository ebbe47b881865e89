"""Rows joined from several records."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.records import Kind, Lane, OutcomeBatch
from sinks.join import Join, joined
from sinks.rows import written_rows
from sinks.schema import TableSchema
from sinks.store import TableStore
from sinks.writer import TableWriter
from tests.samples import DIMENSION, Fields, Row, dead_letter, embedding, outcomes
from tests.sinks.tables import NEVER, rows_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa

JOIN = Join({"stock_time": ("in_stock",), "quantity_time": ("quantity",)}, ("heat",))
SCHEMA = TableSchema(
    DIMENSION,
    {
        "in_stock": "bool",
        "stock_time": "int64",
        "quantity": "int64",
        "quantity_time": "int64",
        "heat": "float64",
    },
    "some/model",
    several_topics=True,
    join=JOIN,
)
VIEWS, STOCKS = Lane("views", 0), Lane("inventory", 0)


def view(product: str, title: str, at: int, **typed: Any) -> Row:
    """A write of a product's title."""
    return embedding(product, title, time_ms=at, metadata=Fields(typed={"heat": 0.0, **typed}))


def stock(product: str, at: int, **typed: Any) -> Row:
    """A write of a product's stock."""
    times = {"stock_time": at, "quantity_time": at if "quantity" in typed else None}
    return Row(Kind.PART, product, at, metadata=Fields(None, None, {**times, **typed}))


def table(batches: Sequence[OutcomeBatch]) -> pa.Table:
    """The rows that batches write."""
    return SCHEMA.rows(written_rows(batches))


def one(*batches: OutcomeBatch) -> dict[str, Any]:
    """The one row that batches make."""
    [row] = joined(SCHEMA.arrow.empty_table(), table(batches), JOIN).to_pylist()
    return dict(row)


def test_title_and_stock_make_one_row() -> None:
    """Each is taken from the record that tells it, whichever comes first."""
    views = outcomes([view("p", "chair", 10)], lane=VIEWS)
    stocks = outcomes([stock("p", 5, in_stock=False, quantity=0)], lane=STOCKS)
    for order in ((views, stocks), (stocks, views)):
        row = one(*order)
        told = [row[name] for name in ("text", "in_stock", "quantity", "stock_time", "deleted")]
        assert told == ["chair", False, 0, 5, False]
        assert (row["source_topic"], row["event_time"].timestamp()) == ("views", 0.01)


def test_the_later_one_wins_each() -> None:
    """A late record changes nothing; of equal times the later record wins."""
    rows = [view("p", "new", 10), view("p", "old", 9), view("p", "same", 10)]
    assert one(outcomes(rows, lane=VIEWS))["text"] == "same"
    rows = [stock("p", 10, in_stock=True, quantity=4), stock("p", 9, in_stock=False, quantity=0)]
    assert one(outcomes(rows, lane=STOCKS))["quantity"] == 4


def test_a_stock_alone_is_no_document() -> None:
    """Readers of documents don't see it, and it waits for its title."""
    row = one(outcomes([stock("p", 5, in_stock=True)], lane=STOCKS))
    assert (row["deleted"], row["text"], row["vector"], row["in_stock"]) == (True, None, None, True)


def test_views_add_up() -> None:
    """Three views of the same time are three times as hot, which the logarithm tells."""
    rows = [view("p", "t", 1, heat=7.0) for _ in range(3)] + [view("p", "t", 1, heat=None)]
    assert one(outcomes(rows, lane=VIEWS))["heat"] == pytest.approx(7.0 + math.log2(3))


def test_dead_letters_write_nothing() -> None:
    """Only what became something is a row."""
    batch = outcomes([dead_letter(), view("p", "t", 1)], lane=VIEWS)
    assert [row["id"] for row in table([batch]).to_pylist()] == ["p"]
    assert written_rows([outcomes([dead_letter()], lane=VIEWS)]) == []


@st.composite
def writes(draw: st.DrawFn) -> list[Row]:
    """Titles and stocks of a few products, no two of one time."""
    times = draw(st.permutations(range(1, 13)))
    made: list[Row] = []
    for at in times[: draw(st.integers(1, 12))]:
        product = draw(st.sampled_from("pq"))
        if draw(st.booleans()):
            told = {"in_stock": at % 2 > 0, "stock_time": at} if draw(st.booleans()) else {}
            made.append(view(product, f"title {at}", at, heat=float(at), **told))
        elif draw(st.booleans()):
            made.append(stock(product, at, in_stock=draw(st.booleans()), quantity=at))
        else:
            made.append(stock(product, at, in_stock=draw(st.booleans())))
    return made


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What of rows must not depend on the order."""
    names = ("text", "in_stock", "quantity", "stock_time", "deleted", "event_time")
    return {
        row["id"]: (*(row[name] for name in names), row["heat"] and round(row["heat"], 9))
        for row in rows
    }


@given(writes(), st.randoms(), st.integers(0, 12))
def test_in_any_order_and_any_cut(rows: list[Row], chance: Any, cut: int) -> None:
    """The same rows come of it, however the writes are ordered and cut into commits."""
    nothing = SCHEMA.arrow.empty_table()
    wanted = joined(nothing, table([outcomes(rows, lane=VIEWS)]), JOIN)
    chance.shuffle(rows)
    held = nothing
    for part in (rows[:cut], rows[cut:]):
        if part:
            held = joined(held, table([outcomes(part, lane=VIEWS)]), JOIN)
    # But for a product without a title, whose row is that of the last write.
    assert summary([r for r in held.to_pylist() if not r["deleted"]]) == summary(
        [r for r in wanted.to_pylist() if not r["deleted"]]
    )
    stocks = ("in_stock", "stock_time", "quantity", "quantity_time")
    assert {r["id"]: [r[n] for n in stocks] for r in held.to_pylist()} == {
        r["id"]: [r[n] for n in stocks] for r in wanted.to_pylist()
    }


@settings(max_examples=10, deadline=None)
@given(writes(), st.integers(0, 12))
def test_in_the_table(tmp_path_factory: pytest.TempPathFactory, rows: list[Row], cut: int) -> None:
    """The writer joins with what the table holds, in one commit."""
    folder: Path = tmp_path_factory.mktemp("join")
    store = TableStore(str(folder), "products", SCHEMA, "some/model", "f1")
    store.ensure()
    writer = TableWriter(store, NEVER, 1)
    for part in (rows[:cut], rows[cut:]):
        if part:
            writer.commit(table([outcomes(part, lane=VIEWS)]), {"views/000000": 1})
    wanted = joined(SCHEMA.arrow.empty_table(), table([outcomes(rows, lane=VIEWS)]), JOIN)
    assert summary(rows_of(store)) == summary(wanted.to_pylist())
    assert store.fence(store.open()).progress == {"views/000000": 1}
