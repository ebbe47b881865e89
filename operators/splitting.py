"""Where a long text is cut: at tokens, at sentences, or at the headings and blocks of Markdown.

Sentences and Markdown are cut by the library semantic-text-splitter: each chunk is as many whole
units (paragraphs, sentences, words) as fit. It is asked about a window of a text at a time, since
the time that it takes rises with the square of some texts' length: 150 kB of `>` took 85 s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

from semantic_text_splitter import MarkdownSplitter, TextSplitter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import tokenizers

__all__ = [
    "CHARACTERS_PER_TOKEN",
    "GROWTH",
    "Cuts",
    "Span",
    "Split",
    "Splitter",
    "cut_at_space",
    "splitter_of",
]

Split = Literal["tokens", "sentences", "markdown"]

Span = tuple[int, int]
"""A range of characters: the first, and the one after the last."""

WINDOW: Final = 32
"""Characters of a window for each token of a chunk: some six chunks of prose."""

CHARACTERS_PER_TOKEN: Final = 16
"""A giant text is cut at tokens only as far as it can matter: first this many characters for each
token that can be kept (three times what prose needs), then further if they made too few tokens."""

GROWTH: Final = 8

LOOK_BACK: Final = 128
"""Characters that a cut through a text looks back for white space, so as not to split a word."""


class Cuts(NamedTuple):
    """The chunks of a text, at least one, and whether the text goes on after them."""

    spans: list[Span]
    truncated: bool


class Splitter(Protocol):
    """Cuts texts."""

    def cut(self, text: str, room: int, most: int) -> Cuts:
        """The first chunks of a text, in order; only white space is in none.

        Args:
            text: Without lone surrogates.
            room: The most tokens of a chunk.
            most: The most chunks.
        """


def splitter_of(split: Split, tokenizer: tokenizers.Tokenizer, overlap: int) -> Splitter:
    """What cuts texts in that way.

    Args:
        split: The way.
        tokenizer: Counts tokens; neither pads nor truncates.
        overlap: Tokens that a chunk repeats from the one before it, where cut at tokens.
    """
    if split == "tokens":
        return _Tokens(tokenizer, overlap)
    return _Units(TextSplitter if split == "sentences" else MarkdownSplitter, tokenizer)


class _Tokens:
    """Cuts after so many tokens."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, overlap: int) -> None:
        self._tokenizer = tokenizer
        self._overlap = overlap

    def cut(self, text: str, room: int, most: int) -> Cuts:
        size = CHARACTERS_PER_TOKEN * room * most
        while True:
            end = cut_at_space(text, size)
            cuts = self._cut(text[:end], room, most)
            if cuts.truncated or end == len(text):
                return cuts
            size *= GROWTH

    def _cut(self, text: str, room: int, most: int) -> Cuts:
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        firsts = range(0, max(1, len(offsets) - self._overlap), max(1, room - self._overlap))
        spans = [
            (offsets[first][0], offsets[min(first + room, len(offsets)) - 1][1])
            for first in (firsts[:most] if offsets else ())
        ]
        return _whole(spans, text, truncated=len(firsts) > most)


class _Units:
    """Cuts between units of meaning."""

    def __init__(
        self,
        kind: type[TextSplitter | MarkdownSplitter],
        tokenizer: tokenizers.Tokenizer,
    ) -> None:
        self._kind = kind
        self._tokenizer = tokenizer

    def cut(self, text: str, room: int, most: int) -> Cuts:
        spans: list[Span] = []
        for span in self._spans(text, room):
            if len(spans) == most:
                return _whole(spans, text, truncated=True)
            spans.append(span)
        return _whole(spans, text, truncated=False)

    def _spans(self, text: str, room: int) -> Iterator[Span]:
        """All chunks; what a window cuts through begins the next one."""
        pieces_of = self._kind.from_callback(self._size, room).chunk_indices
        start, window = 0, WINDOW * room
        while start < len(text):
            end = start + window
            found = [
                (start + at, start + at + len(piece)) for at, piece in pieces_of(text[start:end])
            ]
            if end >= len(text) or len(found) == 1:
                yield from found
            else:
                yield from found[:-1]
                end = found[-1][0] if found else end
            start = end

    @property
    def _size(self) -> Callable[[str], int]:
        encode = self._tokenizer.encode
        return lambda piece: len(encode(piece, add_special_tokens=False).ids)


def cut_at_space(text: str, size: int) -> int:
    """A place at or a little before `size` where a word ends, or the end of a shorter text."""
    if len(text) <= size:
        return len(text)
    for place in range(size, max(size - LOOK_BACK, 1), -1):
        if text[place].isspace():
            return place
    return size


def _whole(spans: list[Span], text: str, *, truncated: bool) -> Cuts:
    """The same chunks, with the white space around the text unless that goes on."""
    if not spans:
        return Cuts([(0, len(text))], truncated=False)
    spans[0] = (0, spans[0][1])
    if not truncated:
        spans[-1] = (spans[-1][0], len(text))
    return Cuts(spans, truncated)
