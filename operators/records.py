"""What flows through the dataflow: batches of records of one lane, as columns.

A *lane* is one source partition. All of a lane's records stay in offset order from the source to
both sinks; nothing else is ordered. A batch covers the offsets from `start` (inclusive) to `end`
(exclusive) of its lane, whether or not each of them holds a record: compaction, aborted
transactions and control records leave gaps. Batches of a lane therefore join without a seam
(`previous.end == next.start`), and progress passes over gaps.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from operators.encoding import Encoded

__all__ = [
    "CARRIED_HEADERS",
    "DeadLetter",
    "Document",
    "DocumentBatch",
    "Headers",
    "Kind",
    "Lane",
    "Metadata",
    "Original",
    "Outcome",
    "OutcomeBatch",
    "RecordBatch",
    "Row",
    "count",
]

Headers = tuple[tuple[str, bytes | None], ...]

CARRIED_HEADERS = frozenset({"traceparent", "event_id", "user_id"})
"""Headers of a source record that go on to its embedding."""


@dataclass(frozen=True, slots=True, order=True)
class Lane:
    """One partition of a source topic."""

    topic: str
    partition: int

    @property
    def key(self) -> str:
        """The lane's name in the dataflow; sorts as (topic, partition) does."""
        return f"{self.topic}/{self.partition:06d}"

    @classmethod
    def parse(cls, key: str) -> Lane:
        """The lane whose `key` this is."""
        topic, _, partition = key.rpartition("/")
        return cls(topic, int(partition))

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """n records as Kafka gave them.

    Attributes:
        lane: Where they were read.
        start: The next offset before the first of them.
        end: The next offset after the last of them and the gap behind it.
        offsets: Rising, n of them.
        timestamps: The records' own, in milliseconds since the epoch.
        keys: n of them.
        values: n of them.
        headers: n of them.
    """

    lane: Lane
    start: int
    end: int
    offsets: Sequence[int] = ()
    timestamps: Sequence[int] = ()
    keys: Sequence[bytes | None] = ()
    values: Sequence[bytes | None] = ()
    headers: Sequence[Headers] = ()

    def __len__(self) -> int:
        return len(self.offsets)


class Kind(IntEnum):
    """What a decoded record asks for."""

    UPSERT = 0
    PATCH = 1
    """Only the metadata of an existing row changes."""
    DELETE = 2
    DEAD = 3


class Outcome(IntEnum):
    """What became of a record: exactly one of these is written for it."""

    EMBEDDING = 0
    TOMBSTONE = 1
    DEAD_LETTER = 2


@dataclass(frozen=True, slots=True)
class Original:
    """A record's key, value and headers as they were read."""

    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that can't be embedded, to be kept with the reason.

    Attributes:
        code: One of the stable codes.
        message: What is wrong with this record, for a person.
        original: The record, without its value where that is too large to be passed on.
    """

    code: str
    message: str
    original: Original


@dataclass(frozen=True, slots=True)
class Metadata:
    """A document's metadata, in the three forms that the sinks need.

    Attributes:
        json: All of it, a JSON object.
        rest: What is not in `typed`, a JSON object.
        typed: The value of each of the table's typed columns, None where the document has none.
    """

    json: str = "{}"
    rest: str = "{}"
    typed: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    """One decoded record.

    Attributes:
        kind: What it asks for.
        id: The document's id; empty for a dead letter.
        text: What to embed; None unless `kind` is UPSERT.
        metadata: None for a deletion and for a dead letter.
        event_time: Milliseconds since the epoch.
        original: What it was decoded from.
        headers: Those that are carried on to the output.
        dead: The reason, where `kind` is DEAD.
    """

    kind: Kind
    id: str
    text: str | None
    metadata: Metadata | None
    event_time: int
    original: Original
    headers: Headers = ()
    dead: DeadLetter | None = None


@dataclass(frozen=True, slots=True)
class DocumentBatch:
    """n decoded records; `offsets`, `timestamps` and `documents` run in parallel."""

    lane: Lane
    start: int
    end: int
    offsets: Sequence[int] = ()
    timestamps: Sequence[int] = ()
    documents: Sequence[Document] = ()

    def __len__(self) -> int:
        return len(self.offsets)


@dataclass(frozen=True, slots=True)
class Row:
    """What is written for one record.

    Attributes:
        outcome: Embedding, tombstone or dead letter.
        id: The document's id; empty for a dead letter.
        event_time: Milliseconds since the epoch.
        text: The embedded text; None unless `outcome` is EMBEDDING.
        metadata: None unless `outcome` is EMBEDDING.
        encoded: Vectors and token counts; None unless `outcome` is EMBEDDING.
        patch: Whether the outcome depends on the row as it stood before the record.
        headers: Those to carry on.
        dead: The reason, where `outcome` is DEAD_LETTER.
    """

    outcome: Outcome
    id: str
    event_time: int
    text: str | None = None
    metadata: Metadata | None = None
    encoded: Encoded | None = None
    patch: bool = False
    headers: Headers = ()
    dead: DeadLetter | None = None


@dataclass(frozen=True, slots=True)
class OutcomeBatch:
    """n outcomes; `offsets`, `timestamps` and `rows` run in parallel.

    Attributes:
        lane: Where the records were read.
        start: The next offset before the first of them.
        end: The next offset after the last of them and the gap behind it.
        embedded_at: When the batch left the model, in milliseconds since the epoch.
        offsets: Rising, n of them.
        timestamps: The source records' own, in milliseconds since the epoch.
        rows: n of them.
    """

    lane: Lane
    start: int
    end: int
    embedded_at: int
    offsets: Sequence[int] = ()
    timestamps: Sequence[int] = ()
    rows: Sequence[Row] = ()

    def __len__(self) -> int:
        return len(self.offsets)

    def slice(self, first: int, last: int) -> OutcomeBatch:
        """The records from index `first` up to `last`, with the gaps that belong to them.

        Slices of one batch join without a seam as batches do: a gap goes with the record that
        follows it, the gap at the end with the last record.
        """
        return OutcomeBatch(
            lane=self.lane,
            start=self._end_before(first),
            end=self.end if last == len(self) else self._end_before(last),
            embedded_at=self.embedded_at,
            offsets=self.offsets[first:last],
            timestamps=self.timestamps[first:last],
            rows=self.rows[first:last],
        )

    def _end_before(self, index: int) -> int:
        """The next offset after the records before an index."""
        return self.offsets[index - 1] + 1 if index else self.start

    def since(self, offset: int) -> OutcomeBatch | None:
        """What of the batch lies at or above `offset`; None when the batch ends before it."""
        if self.end <= offset:
            return None
        if self.start >= offset:
            return self
        first = bisect_left(self.offsets, offset)
        tail = self.slice(first, len(self))
        return replace(tail, start=offset)


def count(batches: Iterable[OutcomeBatch]) -> int:
    """How many records the batches hold."""
    return sum(len(batch) for batch in batches)
