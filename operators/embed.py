"""The stateful tokenise/embed map: documents in, outcomes out, in the lane's order.

Three kinds of state make it cheap and right: a cache of encodings (a repeated text costs no
inference), the session that the encoder holds, and for each lane a view of the records in flight
(a record that changes only metadata needs the text and vector of the row before it). None of it
needs a snapshot: the source goes back to where the slower sink stands, and all three are rebuilt
from what it reads there.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from operators.cache import EncodingCache
from operators.clock import wall_ms
from operators.current import CurrentRow, LaneView, RowLookup, rows_size
from operators.records import DeadLetter, DocumentBatch, Kind, Lane, OutcomeBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from operators.encoding import Encoded

__all__ = ["EmbedStep", "Observer", "StateLimits", "TextEncoder"]


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


@dataclass(frozen=True, slots=True)
class StateLimits:
    """What the step may remember.

    Attributes:
        cache_entries: How many texts' encodings.
        cache_bytes: The most bytes of them.
        view_bytes: For each lane, the most bytes of rows that both sinks have; see
            `operators.current`.
    """

    cache_entries: int
    cache_bytes: int
    view_bytes: int


class EmbedStep:
    """Embeds the documents of every lane that a worker process reads.

    Args:
        encoder: The model.
        lookup: Reads rows that the table has committed.
        written: The next offset of a lane, by its key, below which both sinks have all.
        limits: What may be remembered.
        observer: Told what was done.
        now_ms: The wall clock, in milliseconds since the epoch.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        lookup: RowLookup,
        written: Callable[[str], int],
        limits: StateLimits,
        observer: Observer | None = None,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self._encoder = encoder
        self._lookup = lookup
        self._written = written
        self._cache = EncodingCache(limits.cache_entries, limits.cache_bytes)
        kept = limits.view_bytes
        self._views: defaultdict[Lane, LaneView[CurrentRow]] = defaultdict(
            lambda: LaneView(kept, rows_size)
        )
        self._observer: Observer = observer or _Unobserved()
        self._now_ms = now_ms

    def __call__(self, batches: Sequence[DocumentBatch]) -> list[OutcomeBatch]:
        """The outcomes of all documents at hand, a batch for each, in the batches' order.

        Their texts go to the model together, whatever their lanes: the more there are to sort by
        length, the less is lost on padding.
        """
        # First, so that what a document of these may leave the view for is looked up with it.
        for batch in batches:
            records = batch.records
            self._views[records.lane].advance(records.end, self._written(records.lane.key))
        committed = [self._committed(batch) for batch in batches]
        encodings = self._encodings(batches, committed)
        return [
            self._outcomes(batch, encodings, rows)
            for batch, rows in zip(batches, committed, strict=True)
        ]

    def _committed(self, batch: DocumentBatch) -> Mapping[str, CurrentRow]:
        """The table's rows for patches of documents that no record in flight has touched."""
        if Kind.PATCH not in batch.kinds:
            return {}
        view = self._views[batch.records.lane]
        wanted = {
            identity
            for identity, kind in zip(batch.ids, batch.kinds, strict=True)
            if kind is Kind.PATCH and identity not in view
        }
        return self._lookup(wanted) if wanted else {}

    def _encodings(
        self, batches: Sequence[DocumentBatch], committed: Iterable[Mapping[str, CurrentRow]]
    ) -> Mapping[str, Encoded | None]:
        """Each distinct text's encoding: from the cache, or else from one encoder call.

        None for a text whose vectors are not finite.
        """
        texts = [text for batch in batches for text in batch.texts if text is not None]
        texts += [row.text for rows in committed for row in rows.values() if row.encoded is None]
        distinct = list(dict.fromkeys(texts))
        fingerprints = list(map(self._cache.fingerprint, distinct))
        known: dict[str, Encoded | None] = dict(
            zip(distinct, self._cache.get_all(fingerprints), strict=True)
        )
        missing = {
            text: fingerprint
            for (text, cached), fingerprint in zip(known.items(), fingerprints, strict=True)
            if cached is None
        }
        made = self._encoder.encode(list(missing)) if missing else []
        for (text, fingerprint), encoded in zip(missing.items(), made, strict=True):
            if np.isfinite(encoded.vectors).all():
                known[text] = self._cache.put(fingerprint, encoded)
            else:
                known[text] = None
        self._observer.embedded(
            tokens=sum(e.tokens for e in made),
            truncated=sum(1 for e in made if e.truncated),
            cached=len(texts) - len(missing),
        )
        return known

    def _outcomes(
        self,
        batch: DocumentBatch,
        encodings: Mapping[str, Encoded | None],
        committed: Mapping[str, CurrentRow],
    ) -> OutcomeBatch:
        lane = _LaneOutcomes(batch, self._views[batch.records.lane], encodings, committed)
        lane.run()
        records = batch.records
        return OutcomeBatch(
            records.lane,
            records.start,
            records.end,
            self._now_ms(),
            records.offsets,
            records.timestamps,
            batch.kinds,
            batch.ids,
            batch.event_times,
            lane.texts,
            lane.metadata,
            lane.encoded,
            batch.headers,
            lane.dead,
            records.drained,
            traces=batch.traces,
        )


class _LaneOutcomes:
    """The columns that come with the outcomes of one batch, and the view that they change.

    Args:
        batch: The documents.
        view: What its lane's records in flight made.
        encodings: Of all texts of the batch, None for a text whose vectors are not finite.
        committed: The table's rows for patches of documents that are not in the view.
    """

    def __init__(
        self,
        batch: DocumentBatch,
        view: LaneView[CurrentRow],
        encodings: Mapping[str, Encoded | None],
        committed: Mapping[str, CurrentRow],
    ) -> None:
        self._batch = batch
        self._view = view
        self._encodings = encodings
        self._committed = committed
        self.texts: Sequence[str | None] = batch.texts
        self.metadata = batch.metadata
        self.encoded: list[Encoded | None] = []
        self.dead = dict(batch.dead)
        self._made: dict[str, CurrentRow | None] = {}

    def run(self) -> None:
        """Take every document, in order."""
        if not self._upserts():
            self._each()
        self._view.put(self._made)

    def _upserts(self) -> bool:
        """Take all documents at once, if each is whole and its vectors are finite."""
        batch = self._batch
        if batch.kinds.count(Kind.UPSERT) < len(batch):
            return False
        texts = cast("Sequence[str]", batch.texts)
        self.encoded = list(map(self._encodings.__getitem__, texts))
        if not all(self.encoded):
            return False
        rows = map(CurrentRow._make, zip(texts, self.encoded, strict=True))
        self._made = dict(zip(batch.ids, rows, strict=True))
        return True

    def _each(self) -> None:
        """Take the documents one by one."""
        batch, made = self._batch, self._made
        self.encoded = []
        rows = zip(batch.kinds, batch.ids, batch.texts, strict=True)
        for index, (kind, identity, text) in enumerate(rows):
            encoded: Encoded | None = None
            if kind is Kind.UPSERT and text is not None:
                encoded = self._encodings[text]
                if encoded is None:
                    self._reject(index, "not_finite", "the model gave a vector that is not finite")
                else:
                    made[identity] = CurrentRow(text, encoded)
            elif kind is Kind.PATCH:
                encoded = self._patch(index, identity)
            elif kind is Kind.DELETE:
                made[identity] = None
            self.encoded.append(encoded)

    def _patch(self, index: int, identity: str) -> Encoded | None:
        before = self._before(identity)
        if before is None:
            self._reject(index, "no_text", "no text, and there is no row to change")
            return None
        encoded = before.encoded or self._encodings[before.text]
        if encoded is None:
            self._reject(index, "not_finite", "the model gave a vector that is not finite")
            return None
        if self.texts is self._batch.texts:
            self.texts = list(self._batch.texts)
        self.texts[index] = before.text  # type: ignore[index]  # its own list, made just above
        self._made[identity] = CurrentRow(before.text, encoded)
        return encoded

    def _before(self, identity: str) -> CurrentRow | None:
        """A document's row as the records before left it."""
        if identity in self._made:
            return self._made[identity]
        view = self._view
        return view.get(identity) if identity in view else self._committed.get(identity)

    def _reject(self, index: int, code: str, message: str) -> None:
        self.dead[index] = DeadLetter(code, message, self._batch.records.original(index))
