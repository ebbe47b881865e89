"""A few of a topic's newest records, to see what is in it before anything is read in earnest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sources.again import read_again
from sources.lane import LaneReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from clients.kafka import KafkaConfig
    from operators.records import Lane, RecordBatch

__all__ = ["sample"]


def sample(kafka: KafkaConfig, lanes: Iterable[Lane], most: int) -> Iterator[RecordBatch]:
    """The last records of each partition, a batch for each record.

    Fewer where compaction or transactions have left gaps.

    Args:
        kafka: The broker.
        lanes: The partitions.
        most: How many records of each.

    Raises:
        HeadraceError: The broker can't be reached.
    """
    for lane in lanes:
        reader = LaneReader(kafka, lane)
        try:
            high = reader.watermarks().high
        finally:
            reader.close()
        yield from read_again(kafka, lane, max(0, high - most), high)
