"""What librdkafka's clients tell of themselves: the part of `statistics.interval.ms` that we use.

The format is librdkafka's own (its STATISTICS.md). One of a client that reads has each partition
of its topic, whether it reads that or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Ahead", "RoundTrips", "Statistics"]


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """Requests that a broker answered in the last interval.

    Attributes:
        count: How many.
        total_ms: Milliseconds that they took together.
    """

    count: int
    total_ms: float


@dataclass(frozen=True, slots=True)
class Ahead:
    """A partition that is being read.

    Attributes:
        records: Records that the client has and that nobody has taken, and some words of its own
            that stand in the same queue. 0 where none of them has a byte.
        size: Their bytes.
        stable: The offset behind the last that a `read_committed` reader may have; -1 while that
            is not known.
    """

    records: int
    size: int
    stable: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """A client at one moment.

    Attributes:
        queued: Records that a producer has and the broker has not.
        ahead: The partitions that are being read, by topic and number.
        round_trips: By the address (`host:port`) of a broker.
    """

    queued: int
    ahead: Mapping[tuple[str, int], Ahead]
    round_trips: Mapping[str, RoundTrips]

    @classmethod
    def parse(cls, text: str) -> Statistics:
        """What librdkafka's JSON says.

        Raises:
            orjson.JSONDecodeError: It is none.
        """
        told = orjson.loads(text)
        return cls(told.get("msg_cnt", 0), dict(_ahead(told)), _round_trips(told))


def _ahead(told: Mapping[str, Any]) -> Iterator[tuple[tuple[str, int], Ahead]]:
    for topic, held in told.get("topics", {}).items():
        for partition in held["partitions"].values():
            # Of hundreds that a topic may have, a client of ours reads one.
            if partition.get("fetch_state") == "active":
                yield (
                    (topic, partition["partition"]),
                    Ahead(
                        partition["fetchq_cnt"] if partition["fetchq_size"] else 0,
                        partition["fetchq_size"],
                        max(-1, partition["ls_offset"]),
                    ),
                )


def _round_trips(told: Mapping[str, Any]) -> dict[str, RoundTrips]:
    """By address: a coordinator has a connection of its own to a broker that is there already."""
    found: dict[str, RoundTrips] = {}
    for broker in told.get("brokers", {}).values():
        address, taken = broker["nodename"], broker.get("rtt", {})
        # What is configured may be a name that stands for all of them.
        if address and broker["source"] != "configured" and taken.get("cnt", 0) > 0:
            held = found.get(address, RoundTrips(0, 0.0))
            found[address] = RoundTrips(
                held.count + taken["cnt"], held.total_ms + taken["sum"] / 1000
            )
    return found
