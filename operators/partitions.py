"""Where a key's records are: Kafka's own rule, which Java clients and Headrace's follow."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

__all__ = ["partition_of"]

SEED: Final = 0x9747B28C
MULTIPLIER: Final = 0x5BD1E995
SHIFT: Final = 24
WORD: Final = 0xFFFFFFFF


@lru_cache(maxsize=65_536)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key: murmur2 of it, without the sign, modulo the partitions.

    Args:
        key: The key.
        partitions: How many the topic has.
    """
    return (_murmur2(key) & 0x7FFFFFFF) % partitions


def _murmur2(key: bytes) -> int:
    """The hash that `org.apache.kafka.common.utils.Utils.murmur2` gives."""
    whole = len(key) - len(key) % 4
    value = SEED ^ len(key)
    for start in range(0, whole, 4):
        word = int.from_bytes(key[start : start + 4], "little") * MULTIPLIER & WORD
        word = (word ^ word >> SHIFT) * MULTIPLIER & WORD
        value = value * MULTIPLIER & WORD ^ word
    if whole < len(key):
        value = (value ^ int.from_bytes(key[whole:], "little")) * MULTIPLIER & WORD
    value = (value ^ value >> 13) * MULTIPLIER & WORD
    return value ^ value >> 15
