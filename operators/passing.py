"""Records that are passed over: out of the batch, so that behind it they are a gap like others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import compress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from operators.records import Kind, Metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from operators.records import DocumentBatch, RecordBatch

__all__ = ["PassingDecoder", "SkipObserver"]

Value = TypeVar("Value")


class SkipObserver(Protocol):
    """Told what was passed over, for the metrics."""

    def passed_over(self, topic: str, records: int) -> None:
        """So many records of a topic were."""


@dataclass(frozen=True)
class PassingDecoder:
    """Drops what a decoder says is to be passed over; progress passes it as any gap.

    Args:
        decode: The decoder.
        observer: Told of what is dropped; again for records that are read again.
    """

    decode: Callable[[RecordBatch], DocumentBatch]
    observer: SkipObserver

    def __call__(self, batch: RecordBatch) -> DocumentBatch:
        """The documents of the batch, in its order, of the records that are not passed over."""
        documents = self.decode(batch)
        skipped = documents.kinds.count(Kind.SKIP)
        if not skipped:
            return documents
        self.observer.passed_over(batch.lane.topic, skipped)
        return _kept(documents)


def _kept(documents: DocumentBatch) -> DocumentBatch:
    stay = [kind is not Kind.SKIP for kind in documents.kinds]
    places = {old: new for new, old in enumerate(compress(range(len(stay)), stay))}
    records, metadata = documents.records, documents.metadata
    return replace(
        documents,
        records=replace(
            records,
            offsets=_those(records.offsets, stay),
            timestamps=_those(records.timestamps, stay),
            keys=_those(records.keys, stay),
            values=_those(records.values, stay),
            headers=_those(records.headers, stay),
        ),
        kinds=_those(documents.kinds, stay),
        ids=_those(documents.ids, stay),
        texts=_those(documents.texts, stay),
        metadata=Metadata(
            _those(metadata.json, stay),
            _those(metadata.rest, stay),
            {name: _those(column, stay) for name, column in metadata.typed.items()},
        ),
        event_times=_those(documents.event_times, stay),
        headers=_moved(documents.headers, places),
        dead=_moved(documents.dead, places),
    )


def _those(column: Sequence[Any], stay: Sequence[bool]) -> list[Any]:
    return list(compress(column, stay))


def _moved(sparse: Mapping[int, Value], places: Mapping[int, int]) -> dict[int, Value]:
    return {places[index]: value for index, value in sparse.items() if index in places}
