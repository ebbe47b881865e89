"""Tokens of plain text, looked up word by word.

A BERT tokenizer cuts text at white space and around punctuation, and gives each word its tokens
whatever stands beside it. So the tokens of a text of ordinary ASCII are those of its words, one
after another, and a word that was met before needs no tokenizer: an order of magnitude faster
than to tokenise the text. Any other text, and any other tokenizer, is left to the tokenizer itself.
"""

from __future__ import annotations

import json
import re
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import tokenizers

__all__ = ["WordLookup"]

# Letters and digits together, or one sign of punctuation: how BERT cuts ASCII.
_WORD: Final = re.compile(r"[0-9A-Za-z]+|[^\s0-9A-Za-z]", re.ASCII)
# Control characters vanish from within words; only these count as white space.
_CONTROL: Final = re.compile(r"[^\t\n\r -~]")
_NORMALIZERS: Final = ("BertNormalizer", "Lowercase")
# Some 30 MB of words and tokens; and what is longer than a word comes once.
_MOST_WORDS: Final = 100_000
_LONGEST: Final = 32


class WordLookup:
    """Gives the tokens that a BERT tokenizer gives for plain text; safe for several threads.

    Args:
        tokenizer: whose tokens they are; one that `fits`.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        framed = tokenizer.encode("a")
        mask = framed.special_tokens_mask
        first = sum(takewhile(bool, mask))
        last = sum(takewhile(bool, reversed(mask)))
        self._lead = framed.ids[:first]
        self._trail = framed.ids[len(mask) - last :]
        self._of = _Known(tokenizer).__getitem__
        added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        self._added = re.compile("|".join(map(re.escape, added)) or "(?!)", re.IGNORECASE)

    @staticmethod
    def fits(tokenizer: tokenizers.Tokenizer) -> bool:
        """Whether a tokenizer works word by word, as BERT's does."""
        parts: dict[str, Any] = json.loads(tokenizer.to_str())
        normalizer = parts["normalizer"] or {"type": "Sequence", "normalizers": []}
        steps = normalizer.get("normalizers", [normalizer])
        return (
            all(step["type"] in _NORMALIZERS for step in steps)
            and (parts["pre_tokenizer"] or {}).get("type") == "BertPreTokenizer"
            and parts["model"]["type"] == "WordPiece"
        )

    def ids(self, text: str) -> list[int] | None:
        """The tokens of a text, special ones included; none if it isn't plain."""
        if not text.isascii() or (not text.isprintable() and _CONTROL.search(text)):
            return None
        if self._added.search(text):
            return None
        return [*self._lead, *chain.from_iterable(map(self._of, _WORD.findall(text))), *self._trail]


class _Known(dict[str, list[int]]):
    """Each word met so far with its tokens."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, word: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(word, add_special_tokens=False).ids
        if len(word) <= _LONGEST:
            if len(self) >= _MOST_WORDS:
                self.clear()  # The frequent ones are soon back.
            self[word] = ids
        return ids
