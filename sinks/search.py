"""The table searched: by vector, by words, or by both; deleted rows and the fence row never show.

A search reads one version of the table, the newest when it begins.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

import lance

from sinks.errors import FilterError, SinkError
from sinks.filters import predicate
from sinks.schema import one_of
from sinks.store import LANCE_ERRORS, one_line

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from sinks.fence import Fence
    from sinks.store import TableStore

__all__ = [
    "Found",
    "FoundChunk",
    "Mode",
    "NoTextIndexError",
    "Query",
    "TableReader",
    "check_model",
    "condition",
    "find",
    "reranker",
]

Mode = Literal["vector", "text", "hybrid"]

# The recall of a scan, for a table that has an index.
PROBES: Final = 20
REFINE: Final = 10

WIDEN: Final = 4
"""By how much more rows are asked for when several of those found are of one document."""

FUSED_ROWS: Final = 100
"""The fewest rows of each kind that a hybrid search fuses, so that its first pages agree."""

HIDDEN: Final = frozenset({"vector", "metadata", "deleted", "key", "chunk_hash"})
"""Columns that no condition may name: each is something else than a user would take it for."""

_ALIVE: Final = "NOT deleted"
_PLACES: Final = ("chunk_start", "chunk_end")
_WORD: Final = re.compile(r"\w+")


class NoTextIndexError(SinkError):
    """The table has no text index yet; its writer makes it."""


@dataclass(frozen=True)
class Query:
    """What is looked for.

    Attributes:
        k: How many documents.
        offset: How many before them are left out.
        mode: By what.
        text: The words, for `text` and `hybrid`.
        vector: Of unit length, for `vector` and `hybrid`.
        where: A condition that the documents meet, in SQL, as a user gives it.
        within: A further one, that is taken as it is.
    """

    k: int
    offset: int = 0
    mode: Mode = "vector"
    text: str = ""
    vector: NDArray[np.float32] | None = None
    where: str | None = None
    within: str = ""

    @property
    def depth(self) -> int:
        """How many documents must be known, from the first one on."""
        return self.offset + self.k


@dataclass(frozen=True)
class FoundChunk:
    """The part of a document that a query found.

    Attributes:
        number: Its number, from 0 on.
        start: Its first character within the document's text; None where an older release wrote
            the row and told no more.
        end: The character after its last one; None as well.
        text: Its text.
    """

    number: int
    start: int | None
    end: int | None
    text: str


@dataclass(frozen=True)
class Found:
    """A document as users see it.

    Attributes:
        id: Its id.
        score: Of its best chunk, the higher the nearer: cosine, BM25, or the sum of reciprocal
            ranks.
        text: Its text.
        metadata: Whole again, wherever the table keeps it.
        chunk: Its best chunk.
    """

    id: str
    score: float
    text: str
    metadata: dict[str, Any]
    chunk: FoundChunk


class TableReader:
    """The newest version of a table, with the caches of those before; safe for several threads.

    Args:
        store: The table.
    """

    def __init__(self, store: TableStore) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._held: lance.LanceDataset | None = None
        self._fence: tuple[int, Fence] | None = None

    def latest(self) -> lance.LanceDataset:
        """The newest version.

        Raises:
            SinkError: There is no table, or it can't be read.
        """
        with self._lock:
            held = self._held
            try:
                if held is not None and held.latest_version == held.version:
                    return held
                if held is not None:
                    self._held = lance.dataset(self.store.path, session=held.session())
                    return self._held
            except LANCE_ERRORS:
                # Gone, or another table in its place: what is there now is opened afresh.
                self._held = self._fence = None
            self._held = self.store.open()
            return self._held

    def find(self, query: Query, columns: Collection[str]) -> list[Found]:
        """What the newest version has for a query; see `find`.

        Raises:
            SinkError: See `find`; also that there is no table.
        """
        try:
            return find(self.latest(), query, columns)
        except (FilterError, NoTextIndexError):
            raise
        except SinkError:
            # Maybe another table of as many versions is in its place, which nothing else tells.
            with self._lock:
                self._held = self._fence = None
            return find(self.latest(), query, columns)

    def fence(self) -> Fence:
        """The newest version's fence row, read once for each version.

        Raises:
            SinkError: There is no table, or it is not Headrace's.
        """
        dataset = self.latest()
        known = self._fence
        if known is not None and known[0] == dataset.version:
            return known[1]
        found = self.store.fence(dataset)
        self._fence = dataset.version, found
        return found


def check_model(fence: Fence, table: str, model: str, fingerprint: str) -> None:
    """Refuse to compare vectors of one model with those of another.

    Args:
        fence: The table's.
        table: Its name.
        model: The name of the model that queries are embedded with.
        fingerprint: Of that model.

    Raises:
        SinkError: The table holds another model's vectors.
    """
    if fence.fingerprint != fingerprint:
        raise SinkError(
            f"model.name: {model} has fingerprint {fingerprint}, but table {table} holds vectors "
            f"of {fence.model} ({fence.fingerprint}); set that model again, or another table.name"
        )


def find(dataset: lance.LanceDataset, query: Query, columns: Collection[str]) -> list[Found]:
    """The documents that meet a query, best first; of one with several chunks, the best one.

    Args:
        dataset: A version of the table.
        query: What is looked for.
        columns: The metadata fields that the table keeps as columns.

    Raises:
        FilterError: The condition can't be read, or does not fit the columns.
        NoTextIndexError: The query needs a text index, and there is none.
        SinkError: The table can't be searched.
    """
    search = _Search(dataset, query, tuple(columns), condition(dataset, query.where, query.within))
    rows = query.depth
    while True:
        found = search.ranked(rows)
        documents: dict[str, list[dict[str, Any]]] = {}
        for row in found:
            documents.setdefault(row["id"], []).append(row)
        if len(documents) >= query.depth or len(found) < rows:
            page = list(documents.values())[query.offset : query.depth]
            return search.items(page)
        rows *= WIDEN


@cache
def reranker() -> Any:  # noqa: ANN401 - it has no types
    """What fuses the rows found by vector and by words; a server asks for it before it serves.

    It is imported here since that takes seconds: LanceDB brings much that nothing else needs.
    """
    from lancedb.rerankers import RRFReranker  # noqa: PLC0415

    return RRFReranker()


def condition(dataset: lance.LanceDataset, where: str | None, within: str = "") -> str:
    """What rows must meet: to be documents, and what is asked.

    Args:
        dataset: The table.
        where: A user's condition.
        within: A further one, that is taken as it is.

    Raises:
        FilterError: The user's can't be read, or does not fit the columns.
    """
    alive = f"{_ALIVE} AND {within}" if within else _ALIVE
    if where is None:
        return alive
    given = predicate(where, set(dataset.schema.names) - HIDDEN)
    try:
        dataset.scanner(columns=["id"], filter=given, limit=1).explain_plan()
    except LANCE_ERRORS as error:
        raise FilterError(f"{where}: {_told(error)}") from error
    return f"{alive} AND ({given})"


@dataclass(frozen=True)
class _Search:
    dataset: lance.LanceDataset
    query: Query
    columns: tuple[str, ...]
    condition: str

    def ranked(self, rows: int) -> list[dict[str, Any]]:
        """At most so many rows, best first, each with `score`."""
        mode = self.query.mode
        if mode == "vector":
            table = self._nearest(rows).sort_by("_distance")
            return _scored(table, [1 - d for d in table.column("_distance").to_pylist()])
        if mode == "text":
            table = self._matching(rows).sort_by([("_score", "descending")])
            return _scored(table, table.column("_score").to_pylist())
        return self._fused(rows)

    def items(self, documents: list[list[dict[str, Any]]]) -> list[Found]:
        """What users see of documents, each the rows of it that were found, best first."""
        words = set(_WORD.findall(self.query.text.casefold()))
        chosen = [_best(rows, words if self.query.mode == "text" else set()) for rows in documents]
        texts = self._texts({row["id"] for row in chosen if row["chunk"]})
        return [
            self._item(rows[0]["score"], row, texts.get(row["id"], row["text"]))
            for rows, row in zip(documents, chosen, strict=True)
        ]

    def _item(self, score: float, row: dict[str, Any], text: str) -> Found:
        typed = {name: row[name] for name in self.columns if row[name] is not None}
        metadata = {**json.loads(row["metadata"] or "{}"), **typed}
        return Found(row["id"], score, text, metadata, _chunk(row))

    def _texts(self, ids: Collection[str]) -> dict[str, str]:
        """The whole texts of documents."""
        if not ids:
            return {}
        condition = f"{one_of(ids)} AND chunk = 0 AND {_ALIVE}"
        try:
            found = self.dataset.to_table(columns=["id", "text"], filter=condition)
        except LANCE_ERRORS as error:
            raise SinkError(f"table.name: can't be searched: {one_line(error)}") from error
        return dict(zip(*(found.column(name).to_pylist() for name in ("id", "text")), strict=True))

    def _fused(self, rows: int) -> list[dict[str, Any]]:
        depth = max(rows, FUSED_ROWS)
        near = self._nearest(depth).sort_by("_distance")
        matching = self._matching(depth).sort_by([("_score", "descending")])
        table = reranker().rerank_hybrid(self.query.text, near, matching).slice(0, rows)
        return _scored(table, table.column("_relevance_score").to_pylist())

    def _nearest(self, rows: int) -> pa.Table:
        nearest: dict[str, Any] = {
            "column": "vector",
            "q": self.query.vector,
            "k": rows,
            "metric": "cosine",
        }
        if _indexed(self.dataset, "vector"):
            # As many more as there are more rows asked for than documents.
            nearest |= {
                "nprobes": PROBES * max(1, rows // self.query.depth),
                "refine_factor": REFINE,
            }
        return self._rows("_distance", nearest=nearest)

    def _matching(self, rows: int) -> pa.Table:
        if not _indexed(self.dataset, "text"):
            raise NoTextIndexError(
                "table.name: there is no text index yet; the flow makes it at its next commit "
                "while table.text_index is true"
            )
        return self._rows("_score", full_text_query=self.query.text, limit=rows)

    def _rows(self, measure: str, **search: Any) -> pa.Table:  # noqa: ANN401 - as Lance takes it
        places = [name for name in _PLACES if name in self.dataset.schema.names]
        try:
            return self.dataset.to_table(
                columns=["id", "text", "metadata", "chunk", *places, *self.columns, measure],
                filter=self.condition,
                prefilter=True,
                with_row_id=True,
                **search,
            )
        except LANCE_ERRORS as error:
            if "applying filter" in str(error):
                raise FilterError(f"{self.query.where}: {_told(error)}") from error
            raise SinkError(f"table.name: can't be searched: {one_line(error)}") from error


def _indexed(dataset: lance.LanceDataset, column: str) -> bool:
    return any(index.field_names == [column] for index in dataset.describe_indices())


def _scored(table: pa.Table, scores: list[float]) -> list[dict[str, Any]]:
    return [
        {**row, "score": round(score, 6)}
        for row, score in zip(table.to_pylist(), scores, strict=True)
    ]


def _best(rows: list[dict[str, Any]], words: Collection[str]) -> dict[str, Any]:
    """The best of a document's rows, which are in order.

    The first chunk's row has the whole text, so in a search by words it is found for words of any
    chunk: the chunk that has most of them is meant.
    """
    if len(rows) == 1 or not words:
        return rows[0]
    return max(rows, key=lambda row: sum(word in _chunk(row).text.casefold() for word in words))


def _chunk(row: dict[str, Any]) -> FoundChunk:
    start, end, text = row.get("chunk_start"), row.get("chunk_end"), row["text"]
    if not row["chunk"]:
        text = text[slice(start, end)]
    return FoundChunk(row["chunk"], start, end, text)


def _told(error: BaseException) -> str:
    return one_line(error).removeprefix("Invalid user input: ")
