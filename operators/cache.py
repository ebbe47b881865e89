"""A bounded cache from a text's fingerprint to what the model made of it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from hashlib import blake2b
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from operators.encoding import Encoded

__all__ = ["EncodingCache"]


class EncodingCache:
    """The encodings of the texts used last, so that a repeated text costs no inference.

    Safe for several worker threads. An entry of one chunk takes about 4 bytes a dimension plus
    300, so 10,000 entries of 384 dimensions take some 18 MB.

    Args:
        entries: The most texts to remember; 0 switches the cache off.
    """

    def __init__(self, entries: int) -> None:
        self._limit = entries
        self._held: OrderedDict[bytes, Encoded] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._held)

    @staticmethod
    def fingerprint(text: str) -> bytes:
        """The 16 bytes that stand for the text."""
        return blake2b(text.encode(), digest_size=16).digest()

    def get(self, fingerprint: bytes) -> Encoded | None:
        """What the model made of the text, if it is remembered."""
        with self._lock:
            found = self._held.get(fingerprint)
            if found is not None:
                self._held.move_to_end(fingerprint)
            return found

    def put(self, fingerprint: bytes, encoded: Encoded) -> Encoded:
        """Remember the text's encoding; the one used longest ago may be forgotten for it.

        Returns:
            The encoding with vectors of its own, fit to be held for long.
        """
        # A copy: the vectors are a view into the whole inference's array, which it would keep.
        kept = replace(encoded, vectors=encoded.vectors.copy())
        with self._lock:
            self._held[fingerprint] = kept
            self._held.move_to_end(fingerprint)
            while len(self._held) > self._limit:
                self._held.popitem(last=False)
        return kept
