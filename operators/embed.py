"""The stateful tokenise/embed map: documents in, outcomes out, in the lane's order.

Three kinds of state make it cheap and right: a cache of encodings (a repeated text costs no
inference), the session that the encoder holds, and for each lane a view of the records in flight
(a record that changes only metadata needs the text and vector of the row before it). None of it
needs a snapshot: the source goes back to where the slower sink stands, and all three are rebuilt
from what it reads there.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from operators.cache import EncodingCache
from operators.current import CurrentRow, LaneView, RowLookup
from operators.records import (
    DeadLetter,
    Document,
    DocumentBatch,
    Kind,
    Lane,
    Outcome,
    OutcomeBatch,
    Row,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from operators.encoding import Encoded

__all__ = ["EmbedStep", "Observer", "TextEncoder"]


class TextEncoder(Protocol):
    """The model: text in, vectors out."""

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """The encodings of the texts, in their order."""


class Observer(Protocol):
    """Told what the step did, for the metrics."""

    def embedded(self, tokens: int, truncated: int, cached: int) -> None:
        """So many tokens went in, texts were cut, and encodings came from the cache."""


@dataclass(frozen=True, slots=True)
class _Unobserved:
    def embedded(self, tokens: int, truncated: int, cached: int) -> None:
        pass


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class EmbedStep:
    """Embeds the documents of every lane that a worker process reads.

    Args:
        encoder: The model.
        lookup: Reads rows that the table has committed.
        in_flight: The most records of a lane between the source and the slower sink.
        cache_entries: How many texts' encodings are remembered.
        observer: Told what was done.
        now_ms: The wall clock, in milliseconds since the epoch.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        lookup: RowLookup,
        in_flight: int,
        cache_entries: int,
        observer: Observer | None = None,
        now_ms: Callable[[], int] = _wall_ms,
    ) -> None:
        self._encoder = encoder
        self._lookup = lookup
        self._cache = EncodingCache(cache_entries)
        self._views: defaultdict[Lane, LaneView] = defaultdict(lambda: LaneView(in_flight))
        self._observer: Observer = observer or _Unobserved()
        self._now_ms = now_ms

    def __call__(self, batch: DocumentBatch) -> OutcomeBatch:
        """The outcome of every document, in the batch's order."""
        view = self._views[batch.lane]
        # First, so that what a document of this batch may leave the view for is looked up with it.
        view.advance(len(batch))
        committed = self._committed(batch.documents, view)
        encodings = self._encodings(batch.documents, committed.values())
        rows = [self._outcome(document, view, encodings, committed) for document in batch.documents]
        return OutcomeBatch(
            batch.lane,
            batch.start,
            batch.end,
            self._now_ms(),
            batch.offsets,
            batch.timestamps,
            rows,
        )

    def _committed(self, documents: Sequence[Document], view: LaneView) -> Mapping[str, CurrentRow]:
        """The table's rows for patches of documents that no record in flight has touched."""
        wanted = {d.id for d in documents if d.kind is Kind.PATCH and d.id not in view}
        return self._lookup(wanted) if wanted else {}

    def _encodings(
        self, documents: Sequence[Document], committed: Iterable[CurrentRow]
    ) -> Mapping[str, Encoded]:
        """The encoding of each distinct text: from the cache, or else from one encoder call."""
        texts = [d.text for d in documents if d.text is not None]
        texts += [row.text for row in committed if row.encoded is None]
        known: dict[str, Encoded] = {}
        missing: dict[str, bytes] = {}
        for text in dict.fromkeys(texts):
            fingerprint = self._cache.fingerprint(text)
            cached = self._cache.get(fingerprint)
            if cached is None:
                missing[text] = fingerprint
            else:
                known[text] = cached
        made = self._encoder.encode(list(missing)) if missing else []
        for (text, fingerprint), encoded in zip(missing.items(), made, strict=True):
            self._cache.put(fingerprint, encoded)
            known[text] = encoded
        self._observer.embedded(
            tokens=sum(e.tokens for e in made),
            truncated=sum(1 for e in made if e.truncated),
            cached=len(texts) - len(missing),
        )
        return known

    def _outcome(
        self,
        document: Document,
        view: LaneView,
        encodings: Mapping[str, Encoded],
        committed: Mapping[str, CurrentRow],
    ) -> Row:
        if document.dead is not None:
            return _dead(document, document.dead)
        if document.kind is Kind.DELETE:
            view.put(document.id, None)
            return Row(
                Outcome.TOMBSTONE, document.id, document.event_time, headers=document.headers
            )
        text = document.text
        if text is None:
            known = document.id in view
            before = view.get(document.id) if known else committed.get(document.id)
            if before is None:
                return _rejected(document, "no_text", "no text, and there is no row to change")
            text, encoded = before.text, before.encoded or encodings[before.text]
        else:
            encoded = encodings[text]
        if not np.isfinite(encoded.vectors).all():
            return _rejected(document, "not_finite", "the model gave a vector that is not finite")
        view.put(document.id, CurrentRow(text, encoded))
        return _embedding(document, text, encoded)


def _embedding(document: Document, text: str, encoded: Encoded) -> Row:
    return Row(
        Outcome.EMBEDDING,
        document.id,
        document.event_time,
        text=text,
        metadata=document.metadata,
        encoded=encoded,
        patch=document.kind is Kind.PATCH,
        headers=document.headers,
    )


def _dead(document: Document, dead: DeadLetter) -> Row:
    return Row(
        Outcome.DEAD_LETTER,
        document.id,
        document.event_time,
        patch=document.kind is Kind.PATCH,
        dead=dead,
    )


def _rejected(document: Document, code: str, message: str) -> Row:
    return _dead(document, DeadLetter(code, message, document.original))
