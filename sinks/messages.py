"""Outcomes as records of the embeddings topic and the dead-letter topic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from headrace.v1.embedding_pb2 import Chunk, Embedding, Model, Source
from operators.records import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from operators.records import Headers, Lane, OutcomeBatch, Row

__all__ = ["MessageEncoder", "OutputRecord"]

SCHEMA_VERSION: Final = b"1"


@dataclass(frozen=True, slots=True)
class OutputRecord:
    """A record to produce."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


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
        for offset, row in zip(batch.offsets, batch.rows, strict=True):
            yield self.record(batch.lane, offset, batch.embedded_at, row)

    def record(self, lane: Lane, offset: int, embedded_at: int, row: Row) -> OutputRecord:
        """The record that stands for one outcome."""
        source = ("headrace-source", f"{lane.topic}/{lane.partition}/{offset}".encode())
        if row.outcome is Outcome.DEAD_LETTER:
            return self._dead_letter(source, row)
        value = None
        if row.outcome is Outcome.EMBEDDING:
            value = self._embedding(lane, offset, embedded_at, row)
        headers = (("headrace-schema", SCHEMA_VERSION), source, *row.headers)
        return OutputRecord(self.embeddings, row.id.encode(), value, headers)

    def _dead_letter(self, source: tuple[str, bytes], row: Row) -> OutputRecord:
        dead = row.dead
        assert dead is not None
        headers = (
            *dead.original.headers,
            ("headrace-error", dead.code.encode()),
            ("headrace-message", dead.message.encode()),
            source,
        )
        return OutputRecord(self.dead_letters, dead.original.key, dead.original.value, headers)

    def _embedding(self, lane: Lane, offset: int, embedded_at: int, row: Row) -> bytes:
        encoded, metadata = row.encoded, row.metadata
        assert encoded is not None
        assert metadata is not None
        further = zip(encoded.vectors[1:], encoded.spans[1:], encoded.chunk_tokens[1:], strict=True)
        return Embedding(
            id=row.id,
            vector=self._vector(encoded.vectors[0]),
            dtype=self.dtype,
            dimension=encoded.vectors.shape[1],
            chunks=[
                Chunk(vector=self._vector(vector), start=start, end=end, tokens=tokens)
                for vector, (start, end), tokens in further
            ],
            model=Model(name=self.model_name, fingerprint=self.fingerprint),
            event_time_ms=row.event_time,
            embedded_at_ms=embedded_at,
            source=Source(topic=lane.topic, partition=lane.partition, offset=offset),
            tokens=encoded.tokens,
            truncated=encoded.truncated,
            metadata_json=metadata.json,
        ).SerializeToString()

    def _vector(self, vector: NDArray[np.float32]) -> bytes:
        # "<": little-endian also on a machine that isn't; no copy on one that is.
        return vector.astype("<f4" if self.dtype == "float32" else "<f2", copy=False).tobytes()
