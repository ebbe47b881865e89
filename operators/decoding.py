"""What decoders share: rows of single records to the columns of a batch, held to one size."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from operators.columns import Columns
from operators.judging import Rejected, carried, dead_letter, record_size, too_large
from operators.records import (
    Document,
    DocumentBatch,
    DocumentRow,
    Headers,
    Kind,
    Metadata,
    Original,
    RecordBatch,
)
from operators.routing import TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from operators.routing import Route

__all__ = ["RowDecoder"]

_MOST_BYTES: Final = 4  # of a character in UTF-8


@dataclass(frozen=True)
class RowDecoder:
    """Turns records into documents, one by one.

    Args:
        columns: The metadata fields that the table keeps as typed columns, with their types.
        max_record_bytes: Key, value and headers of a record together; a larger one is a dead
            letter.
        route: Names the table of each document; None where all have one.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    max_record_bytes: int = 900_000
    route: Route | None = field(default=None, kw_only=True)

    def __call__(self, batch: RecordBatch) -> DocumentBatch:
        """One document for each record of the batch, in its order."""
        if not len(batch):
            return DocumentBatch(batch)
        rows = map(self._row, batch.keys, batch.values, batch.headers, batch.timestamps)
        kinds, ids, texts, whole, rest, typed, times, dead = zip(*rows, strict=True)
        columns = dict(zip(self._names, zip(*typed, strict=True), strict=True))
        return DocumentBatch(
            batch,
            kinds,
            ids,
            texts,
            Metadata(whole, rest, columns),
            times,
            carried(batch.headers),
            {index: letter for index, letter in enumerate(dead) if letter} if any(dead) else {},
        )

    def decode(
        self, key: bytes | None, value: bytes | None, headers: Headers, timestamp: int
    ) -> Document:
        """The document that the record holds, or the dead letter that it becomes."""
        return Document(*self._row(key, value, headers, timestamp))

    def _row(
        self, key: bytes | None, value: bytes | None, headers: Headers, timestamp: int
    ) -> DocumentRow:
        """The same as a plain tuple, which costs less to make."""
        try:
            size = record_size(key, value, headers)
            if size > self.max_record_bytes:
                too_large(size, self.max_record_bytes)
            return self._decode(key, value, headers, timestamp)
        except Rejected as fault:
            dead = dead_letter(fault, Original(key, value, headers), self.max_record_bytes)
            return Kind.DEAD, "", None, None, None, self._none, timestamp, dead

    def _decode(
        self, key: bytes | None, value: bytes | None, headers: Headers, timestamp: int
    ) -> DocumentRow:
        """The row of one record, no larger than it may be.

        Raises:
            Rejected: It can't be read.
        """
        raise NotImplementedError

    @cached_property
    def _columns(self) -> Columns:
        return Columns(self.columns)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        """What each row has a value of beside its metadata as JSON."""
        return (*self.columns, *(() if self.route is None else (TABLE,)))

    @cached_property
    def _none(self) -> tuple[None, ...]:
        """The values of a record that leaves no row with metadata."""
        return (None,) * len(self._names)

    def _routed(self, typed: tuple[Any, ...], record: object) -> tuple[Any, ...]:
        """The typed columns' values, and the table's name where there are several.

        Raises:
            Rejected: The record does not say which table is its.
        """
        return typed if self.route is None else (*typed, self.route(record))

    def _check_grown(self, beside: int, written: str) -> None:
        """Refuse a record that is larger with something of it written out again.

        Args:
            beside: Bytes of what is not written again.
            written: What is.

        Raises:
            Rejected: It is too large.
        """
        # Numbers can be longer when written again, as 1e15 is.
        if beside + len(written) > self.max_record_bytes // _MOST_BYTES:
            grown = beside + len(written.encode())
            if grown > self.max_record_bytes:
                what = "with its metadata written out the record has"
                too_large(grown, self.max_record_bytes, what)
