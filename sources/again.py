"""Reads a span of a lane again, apart from the flow: for commands, and for what must be tried."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from clients.errors import BrokerError
from operators.judging import record_size
from operators.records import RecordBatch
from sources.lane import FETCH_RECORDS, LaneReader

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from clients.kafka import KafkaConfig
    from operators.records import Lane

__all__ = ["read_again"]

IDLE_S: Final = 0.005


def read_again(
    kafka: KafkaConfig, lane: Lane, start: int | None = None, end: int | None = None
) -> Generator[RecordBatch]:
    """The committed records of a partition, a batch for each, up to its end as it is at first.

    Args:
        kafka: The broker.
        lane: The partition.
        start: The first offset; the partition's own unless given, or where it begins later.
        end: The offset before which to stop.

    Raises:
        HeadraceError: The broker can't be reached.
    """
    reader = LaneReader(kafka, lane)
    try:
        marks = reader.watermarks()
        # A read_committed end is before the first open transaction, so it can be reached; the
        # reader's position passes over the control records that may be last before it.
        end = marks.high if end is None else min(end, marks.high)
        reader.start(marks.low if start is None else max(start, marks.low))
        for batch in _until(reader, end, kafka):
            yield from (one for one in _each(batch) if one.start < end)
    finally:
        reader.close()


def _until(reader: LaneReader, end: int, kafka: KafkaConfig) -> Iterator[RecordBatch]:
    heard = time.monotonic()
    while reader.position < end:
        batch = reader.read(FETCH_RECORDS)
        if batch is not None:
            yield batch
            heard = time.monotonic()
        elif time.monotonic() - heard > kafka.outage_s:
            raise BrokerError(
                f"kafka.bootstrap_servers: {kafka.bootstrap_servers}: reading {reader.lane}: "
                f"no answer for {kafka.outage_s:.0f} s"
            )
        else:
            time.sleep(IDLE_S)


def _each(batch: RecordBatch) -> Iterator[RecordBatch]:
    rows = zip(
        batch.offsets, batch.timestamps, batch.keys, batch.values, batch.headers, strict=True
    )
    for offset, timestamp, key, value, headers in rows:
        yield RecordBatch(
            batch.lane,
            offset,
            offset + 1,
            (offset,),
            (timestamp,),
            (key,),
            (value,),
            (headers,),
            size=record_size(key, value, headers),
        )
