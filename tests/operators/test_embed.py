from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.current import CurrentRow
from operators.embed import EmbedStep, Reuse, StateLimits
from operators.encoding import Changed, Encoded, Prefixed
from operators.records import (
    DeadLetter,
    DocumentBatch,
    Kind,
    Lane,
    Metadata,
    Original,
    Outcome,
    OutcomeBatch,
    RecordBatch,
)
from tests.samples import LANE, Row, encoded, rows_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from operators.encoding import Input

    Known = Mapping[bytes, NDArray[np.float32]]


@dataclass
class CountingEncoder:
    """Encodes by the text alone and remembers what it was asked; one text makes it fail."""

    calls: list[list[str]] = field(default_factory=list)

    def encode(self, texts: Sequence[Input]) -> list[Encoded]:
        """See `TextEncoder`."""
        plain = [text for text in texts if isinstance(text, str)]
        self.calls.append(plain)
        made = [encoded(text) for text in plain]
        return [
            e._replace(vectors=np.full_like(e.vectors, np.nan)) if text == "nan" else e
            for text, e in zip(texts, made, strict=True)
        ]

    @property
    def texts(self) -> list[str]:
        """All texts that cost an inference."""
        return [text for call in self.calls for text in call]


def sections_of(text: Input) -> list[str]:
    """What the model is told of each section of a text."""
    prefix, text = ("", text) if isinstance(text, str) else text
    return [f"{prefix}>{section}" for section in text.split("|")]


def afresh(text: Input) -> Encoded:
    """A vector for each section of a text; one section has none that is finite."""
    told = sections_of(text)
    vectors = np.concatenate([encoded(section).vectors for section in told])
    vectors[[section.endswith("nan") for section in told]] = np.nan
    hashes = tuple(hashlib.blake2b(one.encode(), digest_size=16).digest() for one in told)
    ones = (1,) * len(told)
    return Encoded(vectors, ((0, 1),) * len(told), ones, len(told), truncated=False, hashes=hashes)


@dataclass
class SectionEncoder:
    """Encodes texts section by section, and counts those that it was told."""

    told: list[str] = field(default_factory=list)

    def encode(self, texts: Sequence[Input]) -> list[Encoded]:
        """See `TextEncoder`."""
        return self.encode_changed(texts, {}).encoded

    def encode_changed(self, texts: Sequence[Input], known: Known) -> Changed:
        """See `TextEncoder`."""
        made = list(map(afresh, texts))
        hashes = [own for one in made for own in one.hashes]
        sections = [section for text in texts for section in sections_of(text)]
        new = [own for own, told in zip(sections, hashes, strict=True) if told not in known]
        self.told += new
        return Changed(made, len(new), len(hashes) - len(new))


@dataclass
class FakeTable:
    """The committed rows."""

    rows: dict[str, CurrentRow] = field(default_factory=dict)
    asked: list[set[str]] = field(default_factory=list)

    def __call__(self, ids: Collection[str]) -> Mapping[str, CurrentRow]:
        """See `RowLookup`."""
        self.asked.append(set(ids))
        return {identity: self.rows[identity] for identity in ids if identity in self.rows}

    def vectors(self, ids: Collection[str]) -> Known:
        """See `VectorLookup`."""
        made = [row.encoded for row in self(ids).values() if row.encoded is not None]
        return {own: one.vectors[n] for one in made for n, own in enumerate(one.hashes)}


@dataclass
class Totals:
    """An observer that adds up."""

    tokens: int = 0
    truncated: int = 0
    cached: int = 0

    reused: int = 0

    def embedded(self, tokens: int, truncated: int, cached: int, reused: int) -> None:
        """See `Observer`."""
        self.reused += reused
        self.tokens += tokens
        self.truncated += truncated
        self.cached += cached


@dataclass
class Bench:
    """An embed step and its surroundings."""

    cache: int = 100
    kept: int = 1 << 20
    encoder: Any = field(default_factory=CountingEncoder)
    table: FakeTable = field(default_factory=FakeTable)
    totals: Totals = field(default_factory=Totals)
    offset: int = 0
    written: int = -1
    prefix: str = ""
    reuse: bool = False

    def __post_init__(self) -> None:
        self.step = EmbedStep(
            self.encoder,
            self.table,
            lambda _: self.written,
            StateLimits(self.cache, 1 << 20, self.kept),
            self.totals,
            lambda: 1234,
            Reuse(self.prefix, self.table.vectors if self.reuse else None),
        )

    def __call__(self, *documents: Given, lane: Lane = LANE) -> list[Row]:
        """The outcomes of the lane's next records."""
        [out] = self.step([self.batch(*documents, lane=lane)])
        return rows_of(out)

    def batch(self, *documents: Given, lane: Lane = LANE) -> DocumentBatch:
        """The lane's next records."""
        first, self.offset = self.offset, self.offset + len(documents)
        offsets = list(range(first, self.offset))
        return batch_of(documents, lane, first, self.offset, offsets, offsets)


@dataclass(frozen=True)
class Given:
    """A decoded record."""

    kind: Kind
    id: str
    text: str | None
    note: str | None
    event_time: int
    dead: DeadLetter | None = None


def batch_of(
    documents: Sequence[Given],
    lane: Lane,
    start: int,
    end: int,
    offsets: Sequence[int],
    timestamps: Sequence[int],
) -> DocumentBatch:
    """Decoded records as columns."""
    keys = [d.id.encode() for d in documents]
    size = len(documents)
    records = RecordBatch(
        lane, start, end, offsets, timestamps, keys, [b"value"] * size, [()] * size
    )
    notes = [d.note for d in documents]
    return DocumentBatch(
        records,
        [d.kind for d in documents],
        [d.id for d in documents],
        [d.text for d in documents],
        Metadata(notes, notes),
        [d.event_time for d in documents],
        dead={index: d.dead for index, d in enumerate(documents) if d.dead is not None},
    )


def upsert(identity: str, text: str, *, note: str = "") -> Given:
    """A document with a text."""
    return Given(Kind.UPSERT, identity, text, note, 5)


def patch(identity: str, note: str = "patched") -> Given:
    """A document without."""
    return Given(Kind.PATCH, identity, None, note, 6)


def delete(identity: str) -> Given:
    """A deletion."""
    return Given(Kind.DELETE, identity, None, None, 7)


def original(identity: str) -> Original:
    """What it was decoded from."""
    return Original(identity.encode(), b"value", ())


def test_outcomes_stay_in_order() -> None:
    """Outcomes run in parallel to the batch, whatever order the encoder was asked in."""
    bench = Bench()
    dead = Given(Kind.DEAD, "", None, None, 1, DeadLetter("bad_json", "", original("x")))
    documents = [upsert("a", "zz"), dead, delete("b"), upsert("c", "a"), patch("a")]
    [out] = bench.step([batch_of(documents, LANE, 3, 30, [4, 6, 7, 20, 28], [1, 2, 3, 4, 5])])
    assert isinstance(out, OutcomeBatch)
    assert (out.lane, out.start, out.end, out.embedded_at) == (LANE, 3, 30, 1234)
    assert (list(out.offsets), list(out.timestamps)) == ([4, 6, 7, 20, 28], [1, 2, 3, 4, 5])
    rows = rows_of(out)
    assert [row.outcome.name for row in rows] == [
        "EMBEDDING",
        "DEAD_LETTER",
        "TOMBSTONE",
        "EMBEDDING",
        "EMBEDDING",
    ]
    assert [row.id for row in rows] == ["a", "", "b", "c", "a"]
    assert [row.event_time for row in rows] == [5, 1, 7, 5, 6]
    for row in rows:
        if row.encoded is not None:
            assert row.text is not None
            np.testing.assert_array_equal(row.encoded.vectors, encoded(row.text).vectors)


def test_a_text_twice_in_a_batch_is_embedded_once() -> None:
    """Texts of a batch reach the encoder once each, in one call."""
    bench = Bench()
    bench(upsert("a", "one"), upsert("b", "two"), upsert("c", "one"))
    assert bench.encoder.calls == [["one", "two"]]
    assert bench.totals.cached == 1
    assert bench.totals.tokens == encoded("one").tokens + encoded("two").tokens


def test_a_text_seen_before_costs_no_inference() -> None:
    """What the cache has is not embedded again, and gives the same vectors."""
    bench = Bench()
    [first] = bench(upsert("a", "one"))
    [again] = bench(upsert("b", "one"), lane=Lane("documents", 1))
    assert bench.encoder.calls == [["one"]]
    assert bench.totals.cached == 1
    assert first.encoded is not None
    assert again.encoded is not None
    np.testing.assert_array_equal(first.encoded.vectors, again.encoded.vectors)


def test_texts_of_several_lanes_go_to_the_model_together() -> None:
    """What a worker holds is encoded in one call, and each lane gets a batch of its own back."""
    bench = Bench()
    other = Lane("documents", 1)
    batches = [
        bench.batch(upsert("a", "one"), patch("a")),
        bench.batch(upsert("b", "two"), upsert("c", "one"), lane=other),
        bench.batch(patch("a"), delete("a"), patch("a")),
    ]
    out = bench.step(batches)
    assert bench.encoder.calls == [["one", "two"]]
    assert [(o.lane, o.start, o.end) for o in out] == [(LANE, 0, 2), (other, 2, 4), (LANE, 4, 7)]
    texts = [[row.text for row in rows_of(o)] for o in out]
    assert texts == [["one", "one"], ["two", "one"], ["one", None, None]]


def test_without_cache_every_batch_is_embedded() -> None:
    """`model.cache_entries = 0` remembers nothing."""
    bench = Bench(cache=0)
    bench(upsert("a", "one"))
    bench(upsert("a", "one"))
    assert bench.encoder.texts == ["one", "one"]


def test_patch_takes_text_and_vector_from_its_own_batch() -> None:
    """A patch behind its document in a batch takes what that made."""
    bench = Bench()
    _, row = bench(upsert("a", "one", note="old"), patch("a"))
    assert (row.text, row.metadata.json, row.kind) == ("one", "patched", Kind.PATCH)
    assert row.event_time == 6
    assert bench.encoder.texts == ["one"]


def test_patch_takes_text_and_vector_from_records_in_flight() -> None:
    """A patch of a document that another batch made needs neither table nor model."""
    bench = Bench(cache=0)
    bench(upsert("a", "one"))
    [row] = bench(patch("a"))
    assert (row.outcome, row.text) == (Outcome.EMBEDDING, "one")
    assert bench.table.asked == []
    assert bench.encoder.texts == ["one"]


def test_patch_takes_text_and_vector_from_the_table() -> None:
    """A patch of a document from long ago takes the table's, without an inference."""
    bench = Bench()
    bench.table.rows["a"] = CurrentRow("one", encoded("one"))
    row, other = bench(patch("a"), patch("b"))
    assert (row.outcome, row.text) == (Outcome.EMBEDDING, "one")
    assert other.dead is not None
    assert bench.table.asked == [{"a", "b"}]
    assert bench.encoder.calls == []


def test_patch_of_a_row_of_several_chunks_is_embedded_again() -> None:
    """Where the table does not keep all of an encoding, the text is embedded again."""
    bench = Bench()
    bench.table.rows["a"] = CurrentRow("one", None)
    [row] = bench(patch("a"))
    assert row.encoded is not None
    assert bench.encoder.texts == ["one"]


def test_views_are_a_lanes_own() -> None:
    """What one lane has in flight is not another lane's row."""
    bench = Bench()
    bench(upsert("a", "one"))
    [row] = bench(patch("a"), lane=Lane("documents", 1))
    assert row.dead is not None


@pytest.mark.parametrize("before", [[], [delete("a")], [upsert("a", "nan")]])
def test_patch_without_a_row_is_a_dead_letter(before: list[Given]) -> None:
    """A patch of an unknown, deleted or refused document is `no_text`, with its original."""
    bench = Bench()
    row = bench(*before, patch("a"))[-1]
    assert row.outcome is Outcome.DEAD_LETTER
    assert row.dead is not None
    assert (row.dead.code, row.dead.original) == ("no_text", original("a"))
    assert row.kind is Kind.PATCH


def test_deleted_in_flight_hides_the_tables_row() -> None:
    """A deletion that the table does not have yet counts for a patch behind it."""
    bench = Bench()
    bench.table.rows["a"] = CurrentRow("one", encoded("one"))
    bench(delete("a"))
    [row] = bench(patch("a"))
    assert row.dead is not None


def test_deleted_in_the_same_batch_hides_the_tables_row() -> None:
    """So does one in the same batch, and a new text behind it makes a row again."""
    bench = Bench()
    bench.table.rows["a"] = CurrentRow("one", encoded("one"))
    rows = bench(patch("a"), delete("a"), patch("a"), upsert("a", "two"), patch("a"))
    assert [row.text for row in rows] == ["one", None, None, "two", "two"]
    assert [row.dead is not None for row in rows] == [False, False, True, False, False]


def test_a_vector_that_is_not_finite_is_a_dead_letter() -> None:
    """A vector that no index can hold goes nowhere, and the row before it stays."""
    bench = Bench()
    good, bad, after = bench(upsert("a", "one"), upsert("a", "nan"), patch("a"))
    assert good.outcome is Outcome.EMBEDDING
    assert bad.dead is not None
    assert (bad.dead.code, bad.dead.original) == ("not_finite", original("a"))
    assert (after.outcome, after.text) == (Outcome.EMBEDDING, "one")


def test_a_document_that_leaves_the_view_within_a_batch_is_still_found() -> None:
    """A patch whose document falls out of the view in the patch's own batch asks the table."""
    bench = Bench(kept=0)
    bench(upsert("a", "one"))
    bench(upsert("b", "two"), upsert("c", "three"))
    bench.table.rows["a"] = CurrentRow("one", encoded("one"))
    bench.written = 1
    row = bench(upsert("d", "four"), upsert("e", "five"), patch("a"))[-1]
    assert (row.outcome, row.text) == (Outcome.EMBEDDING, "one")


STEPS = st.tuples(
    st.sampled_from([Kind.UPSERT, Kind.PATCH, Kind.DELETE]),
    st.sampled_from("abc"),
    st.sampled_from(["one", "two", "nan"]),
)


@settings(max_examples=400, deadline=None)
@given(
    kept=st.sampled_from([0, 2000, 1 << 20]),
    cache=st.integers(0, 3),
    steps=st.lists(STEPS, min_size=5, max_size=30),
    data=st.data(),
)
def test_outcomes_are_those_of_a_plain_dict(
    kept: int, cache: int, steps: list[tuple[Kind, str, str]], data: st.DataObject
) -> None:
    """However records are cut into batches and however late the table is, a patch finds its row.

    The step hears late of what the table has, but never of what it has not.
    """
    bench = Bench(kept=kept, cache=cache)
    model: dict[str, str] = {}
    history: list[dict[str, str]] = [{}]
    expected: list[str | None] = []
    for kind, identity, text in steps:
        if kind is Kind.UPSERT and text != "nan":
            model[identity] = text
        refused = kind is Kind.DELETE or (kind is Kind.UPSERT and text == "nan")
        expected.append(None if refused else model.get(identity))
        if kind is Kind.DELETE:
            model.pop(identity, None)
        history.append(dict(model))
    done = written = 0
    came: list[str | None] = []
    while done < len(steps):
        size = data.draw(st.integers(1, min(5, len(steps) - done)))
        written = data.draw(st.integers(written, done))
        bench.written = data.draw(st.integers(bench.written, written))
        bench.table.rows = {i: CurrentRow(t, encoded(t)) for i, t in history[written].items()}
        makers = {Kind.UPSERT: upsert, Kind.PATCH: lambda i, _: patch(i)}
        makers[Kind.DELETE] = lambda i, _: delete(i)
        batch = [makers[kind](i, text) for kind, i, text in steps[done : done + size]]
        came += [row.text for row in bench(*batch)]
        done += size
    assert came == expected


def titled(kind: Kind, identity: str, text: str | None, title: str | None) -> Given:
    """A document with a title in its metadata."""
    note = None if kind is Kind.DELETE else json.dumps({"title": title} if title else {})
    return Given(kind, identity, text if kind is Kind.UPSERT else None, note, 5)


def test_only_changed_chunks_are_embedded() -> None:
    """Of a new version the model is told what is new, whether the view or the table has the old."""
    bench = Bench(encoder=SectionEncoder(), reuse=True)
    bench(upsert("a", "one|two|three"))
    [row] = bench(upsert("a", "one|2|three"))
    assert bench.encoder.told == [">one", ">two", ">three", ">2"]
    assert bench.table.asked == [{"a"}]
    assert row.encoded is not None
    np.testing.assert_array_equal(row.encoded.vectors, afresh("one|2|three").vectors)
    restarted = Bench(encoder=SectionEncoder(), reuse=True, table=bench.table)
    restarted.table.rows["a"] = CurrentRow("one|2|three", row.encoded)
    restarted(upsert("a", "one|2|three"), upsert("b", "four"))
    assert restarted.encoder.told == [">four"]
    assert restarted.totals.reused == 3
    assert restarted.totals.tokens == 1


def test_a_changed_prefix_is_embedded_again() -> None:
    """A title is part of what the model is told, also where a patch changes it."""
    bench = Bench(encoder=SectionEncoder(), prefix="title", reuse=True)
    bench(titled(Kind.UPSERT, "a", "one|two", "T"))
    bench(titled(Kind.PATCH, "a", None, "T"), titled(Kind.UPSERT, "a", "one|two|3", "T"))
    assert bench.encoder.told == ["T>one", "T>two", "T>3"]
    [row] = bench(titled(Kind.PATCH, "a", None, "U"))
    assert bench.encoder.told[3:] == ["U>one", "U>two", "U>3"]
    assert row.text == "one|two|3"
    [row] = bench(titled(Kind.PATCH, "a", None, None))
    assert bench.encoder.told[6:] == [">one", ">two", ">3"]


TITLED = st.tuples(
    st.sampled_from([Kind.UPSERT, Kind.UPSERT, Kind.PATCH, Kind.DELETE]),
    st.sampled_from("ab"),
    st.sampled_from(["one", "one|two", "one|two|three", "two|nan", "three|one"]),
    st.sampled_from(["T", "U", None]),
)


@settings(max_examples=300, deadline=None)
@given(
    kept=st.sampled_from([0, 2000, 1 << 20]),
    cache=st.integers(0, 3),
    reuse=st.booleans(),
    steps=st.lists(TITLED, min_size=3, max_size=25),
    data=st.data(),
)
def test_outcomes_are_those_of_embedding_afresh(
    kept: int,
    cache: int,
    reuse: bool,
    steps: list[tuple[Kind, str, str, str | None]],
    data: st.DataObject,
) -> None:
    """A document's vectors are those of its text and title as they stand, wherever they come from.

    Whatever the batches and however late the table is.
    """
    bench = Bench(kept=kept, cache=cache, encoder=SectionEncoder(), prefix="title", reuse=reuse)
    model: dict[str, Prefixed] = {}
    history: list[dict[str, Prefixed]] = [{}]
    expected: list[Prefixed | None] = []
    for kind, identity, text, title in steps:
        before = model.get(identity)
        text = before.text if kind is Kind.PATCH and before else text  # noqa: PLW2901
        made: Prefixed | None = Prefixed(title or "", text)
        if kind is Kind.DELETE or "nan" in text or (kind is Kind.PATCH and before is None):
            made = None
        if made is not None:
            model[identity] = made
        if kind is Kind.DELETE:
            model.pop(identity, None)
        expected.append(made)
        history.append(dict(model))
    done = written = 0
    while done < len(steps):
        size = data.draw(st.integers(1, min(5, len(steps) - done)))
        written = data.draw(st.integers(written, done))
        bench.written = data.draw(st.integers(bench.written, written))
        bench.table.rows = {i: CurrentRow(t.text, afresh(t)) for i, t in history[written].items()}
        rows = bench(*[titled(*step) for step in steps[done : done + size]])
        for row, wanted in zip(rows, expected[done : done + size], strict=True):
            assert row.text == (wanted and wanted.text)
            if wanted is not None:
                assert row.encoded is not None
                np.testing.assert_array_equal(row.encoded.vectors, afresh(wanted).vectors)
        done += size
