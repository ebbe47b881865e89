"""Outcomes as records of the embeddings topic and the dead-letter topic."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np

from headrace.v1.embedding_pb2 import Chunk, Embedding, Model, Source
from operators.partitions import partition_of
from operators.records import SOURCE_HEADER, Kind
from operators.views import MOVED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from operators.encoding import Encoded
    from operators.records import DeadLetter, Original, OutcomeBatch

__all__ = ["MessageEncoder", "Messages", "OutputHeaders", "OutputRecord", "ViewMessages"]

SCHEMA_VERSION: Final = b"1"

OutputHeaders = list[tuple[str, str | bytes | None]]
"""Headers as librdkafka's client types them."""


OutputRecord = tuple[str, bytes | None, bytes | None, OutputHeaders, int, int]
"""A record to produce: its topic, key, value, headers, partition and timestamp."""

BY_KEY: Final = -1
"""The partition of a record that its key places."""

NOW: Final = 0
"""The timestamp of a record that is of now."""


class Messages(Protocol):
    """Writes outcomes as records."""

    @property
    def fingerprint(self) -> str:
        """The model's fingerprint."""

    def records(self, batch: OutcomeBatch) -> Iterator[OutputRecord]:
        """What is to be produced for a batch, in its order."""


@dataclass(frozen=True)
class ViewMessages:
    """Writes the outcomes of views: of products, and of the users beside them.

    Args:
        products: Writes those of products.
        users: Writes those of users.
        views: The topic that views are read from.
        partitions: How many that has.
    """

    products: MessageEncoder
    users: MessageEncoder
    views: str
    partitions: int

    @property
    def fingerprint(self) -> str:
        """The model's fingerprint."""
        return self.products.fingerprint

    def records(self, batch: OutcomeBatch) -> Iterator[OutputRecord]:
        """An embedding of its product for each view, then one of its user for each.

        A stock has no embedding, and so none here. A view in another lane than its user's goes
        back to the views, under its user.
        """
        columns = zip(batch.kinds, self.products.records(batch), strict=True)
        for index, (kind, record) in enumerate(columns):
            dead = batch.dead.get(index)
            if dead is not None and dead.code == MOVED:
                yield self._moved(batch, index, dead.original)
            elif dead is not None or kind is not Kind.PART:
                yield record
        if batch.beside is not None:
            yield from self.users.records(batch.beside)

    def _moved(self, batch: OutcomeBatch, index: int, original: Original) -> OutputRecord:
        """The view at its user's place, as old as it is."""
        source = f"{batch.lane}/{batch.offsets[index]}".encode()
        kept = [pair for pair in original.headers if pair[0] != SOURCE_HEADER]
        place = partition_of(original.key or b"", self.partitions)
        headers: OutputHeaders = [*kept, (SOURCE_HEADER, source)]
        timestamp = batch.timestamps[index]
        return self.views, original.key, original.value, headers, place, timestamp


@dataclass(frozen=True)
class MessageEncoder:
    """Writes outcomes as records.

    Args:
        embeddings: The topic of embeddings and tombstones.
        dead_letters: The topic of dead letters.
        dtype: How a vector's numbers are stored.
        model_name: The model's name.
        fingerprint: The model's fingerprint.
        framing: What stands before each embedding, where a schema registry wants that.
    """

    embeddings: str
    dead_letters: str
    dtype: Literal["float32", "float16"]
    model_name: str
    fingerprint: str
    framing: bytes = b""

    def records(self, batch: OutcomeBatch) -> Iterator[OutputRecord]:
        """One record for each outcome, in the batch's order."""
        topic, schema = self.embeddings, ("headrace-schema", SCHEMA_VERSION)
        place = f"{batch.lane}/"
        carried, dead = batch.headers, batch.dead
        columns = zip(batch.offsets, batch.ids, self._values(batch), strict=True)
        for index, (offset, identity, value) in enumerate(columns):
            source = (SOURCE_HEADER, f"{place}{offset}".encode())
            if index in dead:
                yield self._dead_letter(source, dead[index])
                continue
            headers: OutputHeaders = [schema, source]
            if index in carried:
                headers += carried[index]
            yield topic, identity.encode(), value, headers, BY_KEY, NOW

    def _values(self, batch: OutcomeBatch) -> Iterator[bytes | None]:
        """The embeddings as Protobuf; None for a deletion and for a dead letter."""
        # One message, filled in again for each document, for what changes from one to the next.
        source = Source(topic=batch.lane.topic, partition=batch.lane.partition)
        message = Embedding(embedded_at_ms=batch.embedded_at, source=source)
        source, serialise, parts = message.source, message.SerializeToString, self._parts
        framing = self.framing
        columns = zip(
            batch.offsets,
            batch.ids,
            batch.event_times,
            batch.metadata.json,
            batch.encoded,
            strict=True,
        )
        for offset, identity, event_time, metadata, encoded in columns:
            if encoded is None:
                yield None
                continue
            source.offset = offset
            message.id = identity
            message.event_time_ms = event_time
            message.metadata_json = metadata or ""
            # Serialised messages behind one another are one message: Protobuf's own rule, which
            # saves copying the vector into a message and out of it again.
            yield b"".join((framing, serialise(), *parts(encoded)))

    def _dead_letter(self, source: tuple[str, bytes], dead: DeadLetter) -> OutputRecord:
        headers: OutputHeaders = [
            *dead.original.headers,
            ("headrace-error", dead.code.encode()),
            ("headrace-message", dead.message.encode()),
            source,
        ]
        original = dead.original
        return self.dead_letters, original.key, original.value, headers, BY_KEY, NOW

    def _parts(self, encoded: Encoded) -> tuple[Any, ...]:
        """What depends on the text alone, as buffers: the first chunk, then the further ones."""
        if len(encoded.chunk_tokens) == 1:
            only = self._numbers(encoded.vectors)
            return self._head(encoded.tokens, encoded.truncated, only.nbytes), only
        first = self._numbers(encoded.vectors[0])
        head = self._head(encoded.tokens, encoded.truncated, first.nbytes)
        return head, first, self._further(encoded)

    def _head(self, tokens: int, truncated: bool, size: int) -> bytes:
        """What stands before a vector of so many bytes."""
        return _head(self._model, tokens, truncated, size, self._stored.itemsize)

    def _further(self, encoded: Encoded) -> bytes:
        """The second and further chunks."""
        rows = zip(encoded.vectors[1:], encoded.spans[1:], encoded.chunk_tokens[1:], strict=True)
        chunks = [
            Chunk(vector=self._numbers(vector).tobytes(), start=start, end=end, tokens=tokens)
            for vector, (start, end), tokens in rows
        ]
        return Embedding(chunks=chunks).SerializeToString()

    @cached_property
    def _model(self) -> bytes:
        """What is the same in every message."""
        model = Model(name=self.model_name, fingerprint=self.fingerprint)
        return Embedding(dtype=self.dtype, model=model).SerializeToString()

    def _numbers(self, vector: NDArray[np.float32]) -> NDArray[Any]:
        """A vector's numbers as they are stored."""
        return vector.astype(self._stored) if self._converts else vector

    @cached_property
    def _stored(self) -> np.dtype[Any]:
        # "<": little-endian also on a machine that isn't.
        return np.dtype("<f4" if self.dtype == "float32" else "<f2")

    @cached_property
    def _converts(self) -> bool:
        return bool(self._stored != np.dtype(np.float32))


@lru_cache(maxsize=4096)
def _head(model: bytes, tokens: int, truncated: bool, size: int, width: int) -> bytes:
    """What stands before a vector's numbers, its field's number and its size at the end.

    Args:
        model: What is the same in every message, serialised.
        tokens: Of the text.
        truncated: Whether it was cut.
        size: The vector's bytes.
        width: The bytes of one number.
    """
    text = Embedding(dimension=size // width, tokens=tokens, truncated=truncated)
    vector = Embedding(vector=bytes(size)).SerializeToString()[:-size]
    return text.SerializeToString() + model + vector
