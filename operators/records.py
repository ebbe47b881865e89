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
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from operators.encoding import packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from operators.encoding import Encoded
    from operators.traces import TraceParent

__all__ = [
    "CARRIED_HEADERS",
    "SOURCE_HEADER",
    "DeadLetter",
    "Document",
    "DocumentBatch",
    "DocumentRow",
    "Headers",
    "Kind",
    "Lane",
    "Metadata",
    "Original",
    "Outcome",
    "OutcomeBatch",
    "RecordBatch",
    "count",
]

Value = TypeVar("Value")

Headers = tuple[tuple[str, bytes | None], ...]

CARRIED_HEADERS = frozenset({"traceparent", "event_id", "user_id"})
"""Headers of a source record that go on to its embedding."""


SOURCE_HEADER = "headrace-source"
"""Header of an output that names the record which it is the outcome of."""


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
        drained: Whether there was nothing more to read behind them.
        size: Bytes of all their keys, values and headers.
        nudge: Whether this is nothing but an occasion to pass on what is finished; see
            `operators.background`.
    """

    lane: Lane
    start: int
    end: int
    offsets: Sequence[int] = ()
    timestamps: Sequence[int] = ()
    keys: Sequence[bytes | None] = ()
    values: Sequence[bytes | None] = ()
    headers: Sequence[Headers] = ()
    drained: bool = True
    size: int = 0
    nudge: bool = False

    def __len__(self) -> int:
        return len(self.offsets)

    def original(self, index: int) -> Original:
        """One record as it was read."""
        return Original(self.keys[index], self.values[index], self.headers[index])


class Kind(IntEnum):
    """What a decoded record asks for."""

    UPSERT = 0
    PATCH = 1
    """Only the metadata of an existing row changes."""
    DELETE = 2
    DEAD = 3
    PART = 4
    """Only some columns of a row change, which the table's writer joins with the others."""
    SKIP = 5
    """Nothing: the record is passed over."""


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


class Document(NamedTuple):
    """One decoded record: a row of the columns of `DocumentBatch`, which says what they hold."""

    kind: Kind
    id: str
    text: str | None
    metadata: str | None
    rest: str | None
    typed: tuple[Any, ...]
    event_time: int
    dead: DeadLetter | None = None


DocumentRow = tuple[
    Kind, str, str | None, str | None, str | None, tuple[Any, ...], int, DeadLetter | None
]
"""A `Document` as a plain tuple."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """The metadata of n documents, in the three forms that the sinks need.

    Attributes:
        json: All of it, a JSON object each; None where there is no document to have any.
        rest: What is not in `typed`, a JSON object each; None as for `json`.
        typed: The values of each of the table's typed columns, None where a document has none.
    """

    json: Sequence[str | None] = ()
    rest: Sequence[str | None] = ()
    typed: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def slice(self, first: int, last: int) -> Metadata:
        """That of the documents from index `first` up to `last`."""
        typed = {name: values[first:last] for name, values in self.typed.items()}
        return Metadata(self.json[first:last], self.rest[first:last], typed)


@dataclass(frozen=True, slots=True)
class DocumentBatch:
    """n decoded records, as columns that run in parallel to the records'.

    Attributes:
        records: What they were decoded from.
        kinds: What each record asks for.
        ids: The documents' ids; empty for a dead letter.
        texts: What to embed; None unless the kind is UPSERT.
        metadata: None for a deletion and for a dead letter.
        event_times: Milliseconds since the epoch.
        headers: Those that are carried on to the output, by index, where a record has any.
        dead: The reasons of dead letters, by index.
        traces: The spans that the records which are followed were written in, by index.
    """

    records: RecordBatch
    kinds: Sequence[Kind] = ()
    ids: Sequence[str] = ()
    texts: Sequence[str | None] = ()
    metadata: Metadata = field(default_factory=Metadata)
    event_times: Sequence[int] = ()
    headers: Mapping[int, Headers] = field(default_factory=dict)
    dead: Mapping[int, DeadLetter] = field(default_factory=dict)
    traces: Mapping[int, TraceParent] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lane(self) -> Lane:
        """Where the records were read."""
        return self.records.lane

    @property
    def offsets(self) -> Sequence[int]:
        """The records'."""
        return self.records.offsets


@dataclass(frozen=True, slots=True)
class OutcomeBatch:
    """n outcomes, as columns that run in parallel.

    Attributes:
        lane: Where the records were read.
        start: The next offset before the first of them.
        end: The next offset after the last of them and the gap behind it.
        embedded_at: When the batch left the model, in milliseconds since the epoch.
        offsets: Rising, n of them.
        timestamps: The source records' own, in milliseconds since the epoch.
        kinds: What the records asked for. The outcome of an upsert or a patch is an embedding and
            that of a deletion a tombstone, unless it is among `dead`.
        ids: The documents' ids; empty where none could be read.
        event_times: Milliseconds since the epoch.
        texts: The embedded texts; None unless the outcome is an embedding.
        metadata: Holds None unless the outcome is an embedding.
        encoded: Vectors and token counts; None unless the outcome is an embedding.
        headers: Those to carry on, by index, where there are any.
        dead: The reasons of dead letters, by index.
        drained: Whether there was nothing more to read behind the records.
        beside: Further outcomes of some of the same records, for sinks of their own.
        nudge: Whether this is nothing but an occasion to pass on what is due; see
            `operators.background`.
        traces: The spans that the records which are followed were written in, by index.
    """

    lane: Lane
    start: int
    end: int
    embedded_at: int
    offsets: Sequence[int] = ()
    timestamps: Sequence[int] = ()
    kinds: Sequence[Kind] = ()
    ids: Sequence[str] = ()
    event_times: Sequence[int] = ()
    texts: Sequence[str | None] = ()
    metadata: Metadata = field(default_factory=Metadata)
    encoded: Sequence[Encoded | None] = ()
    headers: Mapping[int, Headers] = field(default_factory=dict)
    dead: Mapping[int, DeadLetter] = field(default_factory=dict)
    drained: bool = True
    beside: OutcomeBatch | None = None
    nudge: bool = False
    traces: Mapping[int, TraceParent] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets)

    def __reduce__(self) -> tuple[Any, ...]:
        # Between processes all vectors go as one array: three times as fast as one by one.
        columns = {name: getattr(self, name) for name in self.__slots__}
        columns["encoded"] = packed(self.encoded)
        return _restored, (columns,)

    def outcomes(self) -> dict[Outcome, int]:
        """How many records became what; without those that none did."""
        kinds, dead = self.kinds, len(self.dead)
        gone = kinds.count(Kind.DELETE)
        if dead:
            gone -= sum(1 for index in self.dead if kinds[index] is Kind.DELETE)
        counted = {
            Outcome.EMBEDDING: len(self) - gone - dead,
            Outcome.TOMBSTONE: gone,
            Outcome.DEAD_LETTER: dead,
        }
        return {outcome: number for outcome, number in counted.items() if number}

    @property
    def has_patch(self) -> bool:
        """Whether an outcome depends on the row as it stood before its record."""
        return Kind.PATCH in self.kinds

    def slice(self, first: int, last: int) -> OutcomeBatch:
        """The records from index `first` up to `last`, with the gaps that belong to them.

        Slices of one batch join without a seam as batches do: a gap goes with the record that
        follows it, the gap at the end with the last record.
        """
        whole = last == len(self)
        start = self._end_before(first)
        end = self.end if whole else self._end_before(last)
        return OutcomeBatch(
            lane=self.lane,
            start=start,
            end=end,
            embedded_at=self.embedded_at,
            offsets=self.offsets[first:last],
            timestamps=self.timestamps[first:last],
            kinds=self.kinds[first:last],
            ids=self.ids[first:last],
            event_times=self.event_times[first:last],
            texts=self.texts[first:last],
            metadata=self.metadata.slice(first, last),
            encoded=self.encoded[first:last],
            headers=_within(self.headers, first, last),
            dead=_within(self.dead, first, last),
            drained=self.drained and whole,
            beside=None if self.beside is None else self.beside.between(start, end),
            traces=_within(self.traces, first, last),
        )

    def between(self, start: int, end: int) -> OutcomeBatch:
        """The records from offset `start` up to `end`."""
        part = self.slice(bisect_left(self.offsets, start), bisect_left(self.offsets, end))
        return replace(part, start=start, end=end)

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
        beside = None if self.beside is None else self.beside.between(offset, self.end)
        return replace(tail, start=offset, beside=beside)


def _within(sparse: Mapping[int, Value], first: int, last: int) -> dict[int, Value]:
    """A sparse column's values from index `first` up to `last`."""
    if not sparse:
        return {}
    return {index - first: value for index, value in sparse.items() if first <= index < last}


def _restored(columns: dict[str, Any]) -> OutcomeBatch:
    """The batch that was pickled."""
    columns["encoded"] = unpacked(columns["encoded"], len(columns["offsets"]))
    return OutcomeBatch(**columns)


def count(batches: Iterable[OutcomeBatch]) -> int:
    """How many records the batches hold."""
    return sum(len(batch) for batch in batches)
