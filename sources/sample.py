"""A few of a topic's newest records, to see what is in it before anything is read in earnest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sources.again import read_again
from sources.lane import LaneReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clients.kafka import KafkaConfig
    from operators.records import Lane, RecordBatch

__all__ = ["sample"]


def sample(
    kafka: KafkaConfig, lanes: Sequence[Lane], records: int, partitions: int
) -> Iterator[RecordBatch]:
    """The last records of some partitions, as many of each, a batch for each record.

    Fewer where compaction or transactions have left gaps.

    Args:
        kafka: The broker.
        lanes: The partitions.
        records: About how many records, of all partitions together.
        partitions: Of how many partitions at most: each takes a connection.

    Raises:
        HeadraceError: The broker can't be reached.
    """
    lanes = lanes[:partitions]
    most = -(-records // max(1, len(lanes)))
    for lane in lanes:
        reader = LaneReader(kafka, lane)
        try:
            high = reader.watermarks().high
        finally:
            reader.close()
        yield from read_again(kafka, lane, max(0, high - most), high)
