"""Outcomes as records of the embeddings topic and the dead-letter topic."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from headrace.v1.embedding_pb2 import Chunk, Embedding, Model, Source
from operators.records import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from operators.encoding import Encoded
    from operators.records import DeadLetter, OutcomeBatch

__all__ = ["MessageEncoder", "OutputRecord"]

SCHEMA_VERSION: Final = b"1"

OutputHeaders = list[tuple[str, str | bytes | None]]
"""Headers as librdkafka's client types them."""


class OutputRecord(NamedTuple):
    """A record to produce."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: OutputHeaders


@dataclass(frozen=True)
class MessageEncoder:
    """Writes outcomes as records.

    Args:
        embeddings: The topic of embeddings and tombstones.
        dead_letters: The topic of dead letters.
        dtype: How a vector's numbers are stored.
        model_name: The model's name.
        fingerprint: The model's fingerprint.
    """

    embeddings: str
    dead_letters: str
    dtype: Literal["float32", "float16"]
    model_name: str
    fingerprint: str

    def records(self, batch: OutcomeBatch) -> Iterator[OutputRecord]:
        """One record for each outcome, in the batch's order."""
        schema = ("headrace-schema", SCHEMA_VERSION)
        place = f"{batch.lane.topic}/{batch.lane.partition}/"
        message = self._message(batch)
        for index, (offset, identity) in enumerate(zip(batch.offsets, batch.ids, strict=True)):
            source = ("headrace-source", f"{place}{offset}".encode())
            dead = batch.dead.get(index)
            if dead is not None:
                yield self._dead_letter(source, dead)
                continue
            value = None
            if batch.kinds[index] is not Kind.DELETE:
                value = self._embedding(message, batch, index)
            headers: OutputHeaders = [schema, source, *batch.headers.get(index, ())]
            yield OutputRecord(self.embeddings, identity.encode(), value, headers)

    def _dead_letter(self, source: tuple[str, bytes], dead: DeadLetter) -> OutputRecord:
        headers: OutputHeaders = [
            *dead.original.headers,
            ("headrace-error", dead.code.encode()),
            ("headrace-message", dead.message.encode()),
            source,
        ]
        return OutputRecord(self.dead_letters, dead.original.key, dead.original.value, headers)

    def _message(self, batch: OutcomeBatch) -> Embedding:
        """What changes from one document to the next, to be filled in again for each."""
        source = Source(topic=batch.lane.topic, partition=batch.lane.partition)
        return Embedding(embedded_at_ms=batch.embedded_at, source=source)

    def _embedding(self, message: Embedding, batch: OutcomeBatch, index: int) -> bytes:
        encoded = batch.encoded[index]
        assert encoded is not None
        message.id = batch.ids[index]
        message.event_time_ms = batch.event_times[index]
        message.source.offset = batch.offsets[index]
        message.tokens = encoded.tokens
        message.truncated = encoded.truncated
        message.metadata_json = batch.metadata.json[index] or ""
        message.dimension = encoded.vectors.shape[1]
        first = self._vector(encoded.vectors[0])
        # Serialised messages behind one another are one message: Protobuf's own rule, which saves
        # copying the vector into a message and out of it again.
        parts = [message.SerializeToString(), self._model, _vector_head(len(first)), first]
        if len(encoded.vectors) > 1:
            parts.append(self._further(encoded))
        return b"".join(parts)

    def _further(self, encoded: Encoded) -> bytes:
        """The second and further chunks."""
        rows = zip(encoded.vectors[1:], encoded.spans[1:], encoded.chunk_tokens[1:], strict=True)
        chunks = [
            Chunk(vector=self._vector(vector), start=start, end=end, tokens=tokens)
            for vector, (start, end), tokens in rows
        ]
        return Embedding(chunks=chunks).SerializeToString()

    @cached_property
    def _model(self) -> bytes:
        """What is the same in every message."""
        model = Model(name=self.model_name, fingerprint=self.fingerprint)
        return Embedding(dtype=self.dtype, model=model).SerializeToString()

    def _vector(self, vector: NDArray[np.float32]) -> bytes:
        # "<": little-endian also on a machine that isn't; no copy on one that is.
        return vector.astype("<f4" if self.dtype == "float32" else "<f2", copy=False).tobytes()


@cache
def _vector_head(size: int) -> bytes:
    """What stands before a vector of so many bytes: its field's number and its size."""
    return Embedding(vector=bytes(size)).SerializeToString()[:-size]
