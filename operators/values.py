"""What the bytes of a record hold, before anyone asks where in it something is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from operators.judging import key_identity, parse_json

__all__ = ["JsonValues", "Values"]


class Values(Protocol):
    """Reads keys and values of records: objects, arrays, strings, numbers, as JSON has them."""

    def identity(self, key: bytes | None) -> str:
        """The document's id, where the whole key is that.

        Raises:
            Rejected: It is none.
        """

    def key(self, data: bytes) -> object:
        """What a key holds.

        Raises:
            Rejected: It can't be read.
        """

    def value(self, data: bytes) -> object:
        """What a value holds.

        Raises:
            Rejected: It can't be read.
        """


@dataclass(frozen=True)
class JsonValues:
    """Records that are JSON."""

    def identity(self, key: bytes | None) -> str:
        """The document's id, where the whole key is that: as it is, and no JSON.

        Raises:
            Rejected: It is none.
        """
        return key_identity(key, "document")

    def key(self, data: bytes) -> object:
        """What a key holds.

        Raises:
            Rejected: It is no JSON.
        """
        return parse_json(data, "the key")

    def value(self, data: bytes) -> object:
        """What a value holds.

        Raises:
            Rejected: It is no JSON, or has a number that is not finite.
        """
        return parse_json(data, "the value")
