"""The stateful tokenise/embed map: documents in, outcomes out, in the lane's order.

Three kinds of state make it cheap and right: a cache of encodings (a repeated text costs no
inference), the session that the encoder holds, and for each lane a view of the records in flight
(a record that changes only metadata needs the text and vector of the row before it, and a longer
one the vectors of the chunks that did not change). None of it
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
from operators.current import CurrentRow, LaneView, RowLookup, VectorLookup, rows_size
from operators.encoding import Changed, Prefixed
from operators.prefix import prefixes_of
from operators.records import DeadLetter, DocumentBatch, Kind, Lane, OutcomeBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from operators.cache import Fingerprint
    from operators.encoding import Encoded, Input

    Encodings = dict[Input, Encoded | None]

__all__ = ["EmbedStep", "Observer", "Reuse", "ReusingEncoder", "StateLimits", "TextEncoder"]


class TextEncoder(Protocol):
    """The model: text in, vectors out."""

    def encode(self, texts: Sequence[Input]) -> list[Encoded]:
        """The encodings of the texts, in their order."""


class ReusingEncoder(TextEncoder, Protocol):
    """The model, which can leave out what is known."""

    def encode_changed(
        self, texts: Sequence[Input], known: Mapping[bytes, NDArray[np.float32]]
    ) -> Changed:
        """The same, but for chunks whose vectors are known, by their hashes."""


class Observer(Protocol):
    """Told what the step did, for the metrics."""

    def embedded(self, tokens: int, truncated: int, cached: int, reused: int) -> None:
        """So many tokens went in, texts were cut, encodings came from the cache, chunks again."""


@dataclass(frozen=True, slots=True)
class _Unobserved:
    def embedded(self, tokens: int, truncated: int, cached: int, reused: int) -> None:
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


@dataclass(frozen=True, slots=True)
class Reuse:
    """What of a document is more than its text, and what is less than all of it.

    Attributes:
        prefix: The metadata field that is put before each chunk, for the model only; empty for
            none. A document's vectors are always those of its text and this field as they stand,
            so a record that changes only metadata may have its text embedded again.
        vectors: Reads the vectors that the table has of documents which come again, so that
            chunks which did not change cost no inference; None where they may.
    """

    prefix: str = ""
    vectors: VectorLookup | None = None


class EmbedStep:
    """Embeds the documents of every lane that a worker process reads.

    Args:
        encoder: The model.
        lookup: Reads rows that the table has committed.
        written: The next offset of a lane, by its key, below which both sinks have all.
        limits: What may be remembered.
        observer: Told what was done.
        now_ms: The wall clock, in milliseconds since the epoch.
        reuse: Of prefixes and of chunks that did not change.
    """

    def __init__(
        self,
        encoder: ReusingEncoder,
        lookup: RowLookup,
        written: Callable[[str], int],
        limits: StateLimits,
        observer: Observer | None = None,
        now_ms: Callable[[], int] = wall_ms,
        reuse: Reuse | None = None,
    ) -> None:
        self._encoder = encoder
        self._reuse = reuse or Reuse()
        self._lookup = lookup
        self._written = written
        self._cache = EncodingCache(limits.cache_entries, limits.cache_bytes)
        fingerprint = EncodingCache.prefixed if self._reuse.prefix else EncodingCache.fingerprint
        self._fingerprint = cast("Callable[[Input], Fingerprint]", fingerprint)
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
        inputs = self._inputs(batches, committed)
        encodings = self._encodings(batches, inputs, committed)
        return [
            self._outcomes(batch, own, encodings, rows)
            for batch, own, rows in zip(batches, inputs, committed, strict=True)
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

    def _inputs(
        self, batches: Sequence[DocumentBatch], committed: Sequence[Mapping[str, CurrentRow]]
    ) -> list[Sequence[Input | None]]:
        """For each batch what is to be encoded of its documents."""
        if not self._reuse.prefix:
            return [batch.texts for batch in batches]
        latest: defaultdict[Lane, dict[str, str | None]] = defaultdict(dict)
        return [
            self._prefixed(batch, rows, latest[batch.lane])
            for batch, rows in zip(batches, committed, strict=True)
        ]

    def _prefixed(
        self,
        batch: DocumentBatch,
        committed: Mapping[str, CurrentRow],
        latest: dict[str, str | None],
    ) -> list[Input | None]:
        """The texts of a batch with their prefixes; of a patch, the text that it finds.

        Args:
            batch: The documents.
            committed: The table's rows for its patches.
            latest: The texts that the lane's batches before this one leave; those of this one are
                added.
        """
        view = self._views[batch.lane]
        found: list[Input | None] = []
        prefixes = prefixes_of(batch.metadata, self._reuse.prefix)
        columns = zip(batch.kinds, batch.ids, batch.texts, prefixes, strict=True)
        for kind, identity, text, prefix in columns:
            if kind is Kind.PATCH:
                if identity not in latest:
                    in_view = identity in view
                    row = view.get(identity) if in_view else committed.get(identity)
                    latest[identity] = row and row.text
                text = latest[identity]  # noqa: PLW2901 - the one that the patch is of
            elif kind in {Kind.UPSERT, Kind.DELETE}:
                latest[identity] = text
            found.append(None if text is None else Prefixed(prefix, text))
        return found

    def _encodings(
        self,
        batches: Sequence[DocumentBatch],
        inputs: Sequence[Sequence[Input | None]],
        committed: Sequence[Mapping[str, CurrentRow]],
    ) -> Encodings:
        """Each distinct text's encoding: from the cache, or else from one encoder call.

        None for a text whose vectors are not finite.
        """
        texts = [text for own in inputs for text in own if text is not None]
        if not self._reuse.prefix:
            texts += [r.text for rows in committed for r in rows.values() if r.encoded is None]
        distinct = list(dict.fromkeys(texts))
        fingerprints = list(map(self._fingerprint, distinct))
        known: Encodings = dict(zip(distinct, self._cache.get_all(fingerprints), strict=True))
        missing = {
            text: fingerprint
            for (text, cached), fingerprint in zip(known.items(), fingerprints, strict=True)
            if cached is None
        }
        vectors: dict[bytes, NDArray[np.float32]] = {}
        if missing and self._reuse.vectors is not None:
            vectors = self._known_vectors(batches, inputs, committed, missing)
        self._encode(known, missing, vectors, cached=len(texts) - len(missing))
        return known

    def _known_vectors(
        self,
        batches: Sequence[DocumentBatch],
        inputs: Sequence[Sequence[Input | None]],
        committed: Sequence[Mapping[str, CurrentRow]],
        missing: Mapping[Input, object],
    ) -> dict[bytes, NDArray[np.float32]]:
        """The vectors that documents have which are to be encoded, by the hashes of their chunks.

        Of whatever version: a hash stands for all that the model is told.
        """
        rows = [row for own in committed for row in own.values()]
        wanted: set[str] = set()
        for batch, own in zip(batches, inputs, strict=True):
            view = self._views[batch.lane]
            ids = {i for i, text in zip(batch.ids, own, strict=True) if text in missing}
            rows += filter(None, map(view.get, ids))
            wanted |= {identity for identity in ids if identity not in view}
        known: dict[bytes, NDArray[np.float32]] = {}
        if wanted and self._reuse.vectors is not None:
            known |= self._reuse.vectors(wanted)
        for row in rows:
            if row.encoded is not None and row.encoded.hashes:
                known |= zip(row.encoded.hashes, row.encoded.vectors, strict=True)
        return known

    def _encode(
        self,
        known: Encodings,
        missing: Mapping[Input, Fingerprint],
        vectors: Mapping[bytes, NDArray[np.float32]],
        cached: int = 0,
    ) -> None:
        """Adds the encodings of texts that are not in the cache, by one encoder call."""
        made = self._made(list(missing), vectors) if missing else Changed([], 0, 0)
        for (text, fingerprint), encoded in zip(missing.items(), made.encoded, strict=True):
            finite = np.isfinite(encoded.vectors).all()
            known[text] = self._cache.put(fingerprint, encoded) if finite else None
        self._observer.embedded(
            tokens=made.tokens,
            truncated=sum(1 for e in made.encoded if e.truncated),
            cached=cached,
            reused=made.reused,
        )

    def _made(
        self, texts: Sequence[Input], vectors: Mapping[bytes, NDArray[np.float32]]
    ) -> Changed:
        if self._reuse.vectors is not None:
            return self._encoder.encode_changed(texts, vectors)
        made = self._encoder.encode(texts)
        return Changed(made, sum(e.tokens for e in made), 0)

    def _alone(self, text: Input) -> Encoded | None:
        """The encoding of one text that was not foreseen."""
        known: Encodings = {}
        self._encode(known, {text: self._fingerprint(text)}, {})
        return known[text]

    def _outcomes(
        self,
        batch: DocumentBatch,
        inputs: Sequence[Input | None],
        encodings: Encodings,
        committed: Mapping[str, CurrentRow],
    ) -> OutcomeBatch:
        view = self._views[batch.records.lane]
        alone = self._alone if self._reuse.prefix else None
        lane = _LaneOutcomes(batch, view, inputs, encodings, committed, alone)
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
        inputs: What is encoded of the documents.
        encodings: Of all inputs of the batch, None for a text whose vectors are not finite.
        committed: The table's rows for patches of documents that are not in the view.
        alone: Encodes a text that is not in `encodings`, where metadata have a part in that; None
            where they have none.
    """

    def __init__(
        self,
        batch: DocumentBatch,
        view: LaneView[CurrentRow],
        inputs: Sequence[Input | None],
        encodings: Encodings,
        committed: Mapping[str, CurrentRow],
        alone: Callable[[Input], Encoded | None] | None,
    ) -> None:
        self._batch = batch
        self._view = view
        self._inputs = inputs
        self._encodings = encodings
        self._committed = committed
        self._alone = alone
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
        inputs, texts = cast("Sequence[Input]", self._inputs), cast("Sequence[str]", batch.texts)
        self.encoded = list(map(self._encodings.__getitem__, inputs))
        if not all(self.encoded):
            return False
        rows = map(CurrentRow._make, zip(texts, self.encoded, strict=True))
        self._made = dict(zip(batch.ids, rows, strict=True))
        return True

    def _each(self) -> None:
        """Take the documents one by one."""
        batch, made = self._batch, self._made
        self.encoded = []
        rows = zip(batch.kinds, batch.ids, batch.texts, self._inputs, strict=True)
        for index, (kind, identity, text, given) in enumerate(rows):
            encoded: Encoded | None = None
            if kind is Kind.UPSERT and text is not None and given is not None:
                encoded = self._encodings[given]
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
        encoded = self._patched(before, self._inputs[index])
        if encoded is None:
            self._reject(index, "not_finite", "the model gave a vector that is not finite")
            return None
        if self.texts is self._batch.texts:
            self.texts = list(self._batch.texts)
        self.texts[index] = before.text  # type: ignore[index]  # its own list, made just above
        self._made[identity] = CurrentRow(before.text, encoded)
        return encoded

    def _patched(self, before: CurrentRow, given: Input | None) -> Encoded | None:
        """The encoding of a row whose metadata have changed."""
        if self._alone is None:
            return before.encoded or self._encodings[before.text]
        assert isinstance(given, Prefixed)
        # Another text than was foreseen, if the last one's vectors were not finite.
        wanted = Prefixed(given.prefix, before.text)
        if wanted not in self._encodings:
            self._encodings[wanted] = self._alone(wanted)
        return self._encodings[wanted]

    def _before(self, identity: str) -> CurrentRow | None:
        """A document's row as the records before left it."""
        if identity in self._made:
            return self._made[identity]
        view = self._view
        return view.get(identity) if identity in view else self._committed.get(identity)

    def _reject(self, index: int, code: str, message: str) -> None:
        self.dead[index] = DeadLetter(code, message, self._batch.records.original(index))
