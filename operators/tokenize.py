"""Text to tokens: truncated, or cut into overlapping chunks.

A text is encoded by the model's own tokenizer, one at a time on the calling thread: as fast as a
batch on one core, and a text that can't be encoded fails alone. Where the tokenizer works word by
word, plain text is looked up instead (`operators.words`), with the same tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import tokenizers

from headrace.errors import UsageError
from operators.words import WordLookup

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Chunk", "Tokenized", "Tokenizer"]

# A giant text is encoded only as far as it can matter: first this many characters for each token
# that can be kept (three times what prose needs), then further if they made too few tokens.
_CHARACTERS_PER_TOKEN: Final = 16
_GROWTH: Final = 8
# The character that a cut through a text looks back for, so as not to split a word.
_LOOK_BACK: Final = 128


class Chunk(NamedTuple):
    """One input of the model; a tuple, as one is made for each text.

    Attributes:
        ids: token ids, special ones and the prompt included.
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


class Tokenized(NamedTuple):
    """A text's chunks, at least one, and whether the text goes on after them."""

    chunks: tuple[Chunk, ...]
    truncated: bool


class Tokenizer:
    """The model's tokenizer with its limits.

    Args:
        tokenizer_file: the model's `tokenizer.json`.
        max_tokens: the most tokens of one chunk, special ones and the prompt included.
        max_chunks: the most chunks kept of one text.
        overlap: tokens that a chunk repeats from the one before it.
        prompt: put before each chunk; spans don't count it.

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
    ) -> None:
        self._whole = tokenizers.Tokenizer.from_file(str(tokenizer_file))
        self._whole.no_padding()
        self._whole.no_truncation()
        specials = self._whole.num_special_tokens_to_add(is_pair=False)
        prompt_tokens = len(self._whole.encode(prompt, add_special_tokens=False).ids)
        room = max_tokens - specials - prompt_tokens
        overlap = overlap if max_chunks > 1 else 0
        _check(max_tokens, max_chunks, overlap, room)
        self._prompt = prompt
        self._max_tokens = max_tokens
        self._max_chunks = max_chunks
        self._first_cut = _CHARACTERS_PER_TOKEN * max_tokens * max_chunks
        self._words = None
        if WordLookup.fits(self._whole):
            self._words = WordLookup(tokenizers.Tokenizer.from_str(self._whole.to_str()))
        self._whole.enable_truncation(max_tokens)
        # With a prompt, chunks are found in the bare text, with room left for the prompt, and
        # each is then encoded again behind it.
        self._in_two_steps = bool(prompt) and max_chunks > 1
        self._split = tokenizers.Tokenizer.from_str(self._whole.to_str())
        if max_chunks > 1:
            self._split.enable_truncation(max_tokens - prompt_tokens, stride=overlap)

    def encode_batch(self, texts: Sequence[str]) -> list[Tokenized]:
        """Each text's chunks, in order. An empty text makes one chunk of special tokens.

        Lone surrogates, which no tokenizer takes, are read as `?`.
        """
        return [self.encode(text) for text in texts]

    def encode(self, text: str) -> Tokenized:
        """The chunks of one text, at least one."""
        ids = self._look_up(text)
        if ids is not None:
            return Tokenized((Chunk(ids, 0, len(text)),), truncated=False)
        return self._tokenize(text)

    def _look_up(self, text: str) -> list[int] | None:
        """The tokens of a plain text that fits into one chunk."""
        if self._words is None or self._in_two_steps or len(text) > self._first_cut:
            return None
        ids = self._words.ids(self._prompt + text)
        return None if ids is None or len(ids) > self._max_tokens else ids

    def _tokenize(self, text: str) -> Tokenized:
        """The chunks of any text, by the tokenizer itself."""
        prefix = "" if self._in_two_steps else self._prompt
        encodings = self._encode_enough(_encodable(text), prefix)
        kept = encodings[: self._max_chunks]
        truncated = len(encodings) > self._max_chunks
        spans = [_span(encoding, len(prefix)) for encoding in kept]
        spans[0] = (0, spans[0][1])
        if not truncated:
            spans[-1] = (spans[-1][0], len(text))
        ids = [encoding.ids for encoding in kept]
        if self._in_two_steps:
            ids = [self._whole.encode(self._prompt + text[slice(*span)]).ids for span in spans]
        chunks = (Chunk(own, *span) for own, span in zip(ids, spans, strict=True))
        return Tokenized(tuple(chunks), truncated)

    def _encode_enough(self, text: str, prefix: str) -> list[tokenizers.Encoding]:
        """All chunks of `text`, or of so much of it that more than are kept came out."""
        size = self._first_cut
        while True:
            cut = _cut_at_space(text, size)
            first = self._split.encode(prefix + text[:cut])
            encodings = [first, *first.overflowing]
            if cut == len(text) or len(encodings) > self._max_chunks:
                return encodings
            size *= _GROWTH


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


def _cut_at_space(text: str, size: int) -> int:
    """A place at or a little before `size` where a word ends, or the end of a shorter text."""
    if len(text) <= size:
        return len(text)
    for place in range(size, max(size - _LOOK_BACK, 1), -1):
        if text[place].isspace():
            return place
    return size


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
