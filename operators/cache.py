"""A bounded cache from a text's fingerprint to what the model made of it."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from threading import Lock
from typing import TYPE_CHECKING, Final

from operators.encoding import Encoded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operators.encoding import Prefixed

__all__ = ["ENTRY_BYTES", "SHORT_TEXT", "EncodingCache", "Fingerprint"]

Fingerprint = str | bytes

ENTRY_BYTES: Final = 300
"""What an entry takes for each chunk beside its vector: objects, and its place in the dict."""


SHORT_TEXT: Final = 64
"""The most characters of a text that is its own fingerprint: looking it up costs less than
hashing it, and it takes no more room than is counted."""


class EncodingCache:
    """The encodings of the texts used last, so that a repeated text costs no inference.

    Safe for several worker threads. An entry of one chunk takes about 4 bytes a dimension plus
    300, so 10,000 entries of 384 dimensions take some 18 MB; a further chunk as much again.

    Args:
        entries: The most texts to remember; 0 switches the cache off.
        size: The most bytes that they may take together; 0 does the same.
    """

    def __init__(self, entries: int, size: int) -> None:
        self._limit = entries
        self._most = size
        self._size = 0
        self._held: OrderedDict[Fingerprint, Encoded] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._held)

    @staticmethod
    def fingerprint(text: str) -> Fingerprint:
        """What stands for the text: 16 bytes, or the text itself where that is short ASCII."""
        if len(text) <= SHORT_TEXT and text.isascii():
            return text
        return blake2b(text.encode(), digest_size=16).digest()

    @staticmethod
    def prefixed(text: Prefixed) -> Fingerprint:
        """What stands for a text with a prefix: 16 bytes."""
        prefix = blake2b(text.prefix.encode(), digest_size=16).digest()
        return blake2b(text.text.encode(), digest_size=16, key=prefix).digest()

    def get(self, fingerprint: Fingerprint) -> Encoded | None:
        """What the model made of the text, if it is remembered."""
        [found] = self.get_all([fingerprint])
        return found

    def get_all(self, fingerprints: Sequence[Fingerprint]) -> list[Encoded | None]:
        """What the model made of texts, where it is remembered."""
        with self._lock:
            found = list(map(self._held.get, fingerprints))
            for fingerprint, encoded in zip(fingerprints, found, strict=True):
                if encoded is not None:
                    self._held.move_to_end(fingerprint)
            return found

    def put(self, fingerprint: Fingerprint, encoded: Encoded) -> Encoded:
        """Remember the text's encoding; those used longest ago may be forgotten for it.

        Returns:
            The encoding with vectors of its own, fit to be held for long.
        """
        # A copy: the vectors are a view into the whole inference's array, which it would keep.
        kept = Encoded(encoded.vectors.copy(), *encoded[1:])
        size = _size(kept)
        if not self._limit or size > self._most:
            return kept
        with self._lock:
            before = self._held.pop(fingerprint, None)
            self._size += size - (_size(before) if before else 0)
            self._held[fingerprint] = kept
            while len(self._held) > self._limit or self._size > self._most:
                _, forgotten = self._held.popitem(last=False)
                self._size -= _size(forgotten)
        return kept


def _size(encoded: Encoded) -> int:
    """About how many bytes an entry takes: vectors, and for each chunk its span and tokens."""
    return encoded.vectors.nbytes + ENTRY_BYTES * len(encoded.spans)
