"""Text to tokens: truncated, or cut into chunks.

A text is encoded by the model's own tokenizer, one at a time on the calling thread: as fast as a
batch on one core, and a text that can't be encoded fails alone. Where the tokenizer works word by
word, plain text is looked up instead (`operators.words`), with the same tokens.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import tokenizers

from headrace.errors import UsageError
from operators.encoding import HASH_BYTES
from operators.splitting import (
    CHARACTERS_PER_TOKEN,
    GROWTH,
    Split,
    cut_at_space,
    splitter_of,
)
from operators.words import WordLookup

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from operators.encoding import Input

__all__ = ["ONE_CHUNK", "Chunk", "Chunking", "Tokenized", "Tokenizer"]

PREFIX_SHARE: Final = 4
"""A document's prefix takes at most the fourth part of a chunk."""


class Chunk(NamedTuple):
    """One input of the model; a tuple, as one is made for each text.

    Attributes:
        ids: token ids, special ones, the prompt and the prefix included.
        start: first character of the text in this chunk.
        end: character after the last one.
    """

    ids: list[int]
    start: int
    end: int

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return len(self.ids)

    @property
    def hash(self) -> bytes:
        """Blake2b-128 of the tokens: of equal ones a model makes equal vectors."""
        return blake2b(np.array(self.ids, "<u4").tobytes(), digest_size=HASH_BYTES).digest()


class Chunking(NamedTuple):
    """How a long document is cut.

    Attributes:
        max_chunks: the most chunks of `max_tokens` tokens kept of it; 1 truncates.
        overlap: tokens that a chunk repeats from the one before it, where cut at tokens.
        split: where it is cut.
    """

    max_chunks: int = 1
    overlap: int = 32
    split: Split = "tokens"


ONE_CHUNK: Final = Chunking()
"""A document is truncated."""


class Tokenized(NamedTuple):
    """A text's chunks, at least one, and whether the text goes on after them."""

    chunks: tuple[Chunk, ...]
    truncated: bool


class Tokenizer:
    """The model's tokenizer with its limits.

    Args:
        tokenizer_file: the model's `tokenizer.json`.
        max_tokens: the most tokens of one chunk, special ones, prompt and prefix included.
        max_chunks: the most chunks kept of one text.
        overlap: tokens that a chunk repeats from the one before it, where cut at tokens.
        prompt: put before each chunk; spans don't count it.
        split: where a text is cut that needs several chunks.

    Raises:
        UsageError: a limit that leaves no room for text.
    """

    def __init__(
        self,
        tokenizer_file: Path,
        *,
        max_tokens: int,
        max_chunks: int = 1,
        overlap: int = 0,
        prompt: str = "",
        split: Split = "tokens",
    ) -> None:
        self._bare = tokenizers.Tokenizer.from_file(str(tokenizer_file))
        self._bare.no_padding()
        self._bare.no_truncation()
        specials = self._bare.num_special_tokens_to_add(is_pair=False)
        self._room = max_tokens - specials
        room = self._room - self._count(prompt)
        overlap = overlap if max_chunks > 1 and split == "tokens" else 0
        _check(max_tokens, max_chunks, overlap, room)
        self._prompt = prompt
        self._prefix_tokens = room // PREFIX_SHARE
        self._max_tokens = max_tokens
        self._max_chunks = max_chunks
        self._first_cut = CHARACTERS_PER_TOKEN * max_tokens * max_chunks
        self._words = WordLookup(self._bare) if WordLookup.fits(self._bare) else None
        self._whole = tokenizers.Tokenizer.from_str(self._bare.to_str())
        self._whole.enable_truncation(max_tokens)
        self._by_tokens = split == "tokens"
        self._splitter = splitter_of(split, self._bare, overlap)
        self._overflowing = self._whole
        if max_chunks > 1 and self._by_tokens:
            self._overflowing = tokenizers.Tokenizer.from_str(self._bare.to_str())
            self._overflowing.enable_truncation(max_tokens, stride=overlap)

    def encode_batch(self, texts: Sequence[Input]) -> list[Tokenized]:
        """Each text's chunks, in order. An empty text makes one chunk of special tokens.

        Lone surrogates, which no tokenizer takes, are read as `?`.
        """
        return [self.encode(text) for text in texts]

    def encode(self, text: Input) -> Tokenized:
        """The chunks of one text, at least one."""
        before = self._prompt
        if not isinstance(text, str):
            prefix, text = text
            before += self._fitted(prefix)
        ids = self._look_up(before, text)
        if ids is not None:
            return Tokenized((Chunk(ids, 0, len(text)),), truncated=False)
        text = _encodable(text)
        if self._max_chunks == 1 or (self._by_tokens and not before):
            return self._at_once(before, text)
        return self._in_two_steps(before, text)

    def _count(self, text: str) -> int:
        """The tokens of a text, without special ones."""
        return len(self._bare.encode(text, add_special_tokens=False).ids)

    def _fitted(self, prefix: str) -> str:
        """As much of a document's prefix as there is room for, as a line of its own."""
        most = self._prefix_tokens
        prefix = _encodable(prefix.strip()[: CHARACTERS_PER_TOKEN * most])
        offsets = self._bare.encode(prefix, add_special_tokens=False).offsets
        end = offsets[:most][-1][1] if offsets and most else 0
        return f"{prefix[:end]}\n" if end else ""

    def _look_up(self, before: str, text: str) -> list[int] | None:
        """The tokens of a plain text that fits into one chunk."""
        if self._words is None or len(text) > self._first_cut:
            return None
        ids = self._words.ids(before + text)
        return None if ids is None or len(ids) > self._max_tokens else ids

    def _at_once(self, before: str, text: str) -> Tokenized:
        """The chunks of a text of which the tokenizer itself makes them."""
        encodings = self._encode_enough(before, text)
        kept = encodings[: self._max_chunks]
        truncated = len(encodings) > self._max_chunks
        spans = [_span(encoding, len(before)) for encoding in kept]
        spans[0] = (0, spans[0][1])
        if not truncated:
            spans[-1] = (spans[-1][0], len(text))
        ids = (encoding.ids for encoding in kept)
        chunks = (Chunk(own, *span) for own, span in zip(ids, spans, strict=True))
        return Tokenized(tuple(chunks), truncated)

    def _in_two_steps(self, before: str, text: str) -> Tokenized:
        """The chunks of a text, found in it with room left for what comes before each."""
        if len(text) <= CHARACTERS_PER_TOKEN * self._max_tokens:
            only = self._whole.encode(before + text)
            if not only.overflowing:
                return Tokenized((Chunk(only.ids, 0, len(text)),), truncated=False)
        room = self._room - self._count(before)
        spans, truncated = self._splitter.cut(text, room, self._max_chunks)
        chunks = (
            Chunk(self._whole.encode(before + text[slice(*span)]).ids, *span) for span in spans
        )
        return Tokenized(tuple(chunks), truncated)

    def _encode_enough(self, before: str, text: str) -> list[tokenizers.Encoding]:
        """All chunks of `text`, or of so much of it that more than are kept came out."""
        size = self._first_cut
        while True:
            cut = cut_at_space(text, size)
            first = self._overflowing.encode(before + text[:cut])
            encodings = [first, *first.overflowing]
            if cut == len(text) or len(encodings) > self._max_chunks:
                return encodings
            size *= GROWTH


def _check(max_tokens: int, max_chunks: int, overlap: int, room: int) -> None:
    """Refuses limits that leave no room for text."""
    if max_chunks < 1:
        raise UsageError(f"model.max_chunks: {max_chunks} — must be at least 1")
    if room < 1:
        raise UsageError(
            f"model.max_tokens: {max_tokens} — leaves no room for text beside the special tokens "
            f"and the prompt; raise it by at least {1 - room}"
        )
    if not 0 <= overlap < room:
        raise UsageError(
            f"model.chunk_overlap: {overlap} — must be at least 0 and below {room}, "
            "the tokens of text in one chunk"
        )


def _encodable(text: str) -> str:
    """The text with each lone surrogate replaced; as long as before."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


def _span(encoding: tokenizers.Encoding, prefix: int) -> tuple[int, int]:
    """The characters that an encoding's own tokens cover, without the prefix."""
    own = [
        offsets
        for offsets, special in zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
        if not special
    ]
    if not own:
        return 0, 0
    return max(own[0][0] - prefix, 0), max(own[-1][1] - prefix, 0)
