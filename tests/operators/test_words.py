"""Tokens of plain text, looked up word by word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Raw
from tokenizers import models, normalizers, pre_tokenizers, processors

from operators import words
from operators.tokenize import Tokenizer
from operators.words import WordLookup
from tests.operators.model import tiny

if TYPE_CHECKING:
    from pathlib import Path

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = [*"abcdeABC0123.,-'[]é好", *(f"##{letter}" for letter in "abcde01"), "cab", "##ed", "é"]


def bert(*, lowercase: bool = True, clean: bool = True, prompt: bool = False) -> Raw:
    """BERT's tokenizer, with a vocabulary of a few pieces."""
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys([*SPECIAL, *PIECES]))}
    made = Raw(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=9))  # noqa: S106
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase, clean_text=clean)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    single = "[CLS] $A [SEP]" if not prompt else "[CLS] [MASK] $A"
    made.post_processor = processors.TemplateProcessing(
        single=single,
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[MASK]", "[SEP]")],
    )
    made.add_special_tokens(SPECIAL)
    return made


TOKENIZERS = [bert(), bert(lowercase=False), bert(clean=False), bert(prompt=True)]
LOOKUPS = [WordLookup(tokenizer) for tokenizer in TOKENIZERS]
ODD = st.sampled_from(
    ["[CLS]", "[mask]", "\x00", "\x1c", "\x0b", "\u212a", "é", "好", "\u00a0", "\x7f"]
)
TEXTS = st.lists(st.text("abcdeABC019 .,-'[]\n\t\r_", max_size=12) | st.text(max_size=3) | ODD)


@given(TEXTS.map("".join))
@example("abcab\x00cab [CLS] cab")
@example("cabedabcabcabed ca.b--c  \r\n [ CLS ] A1")
def test_looked_up_tokens_are_the_tokenizers(text: str) -> None:
    """Whatever the text, it has the tokens that the tokenizer gives, or is left to it."""
    for tokenizer, lookup in zip(TOKENIZERS, LOOKUPS, strict=True):
        assert lookup.ids(text) in (None, tokenizer.encode(text).ids)


@pytest.mark.parametrize("text", ["", "cab", "Cab, [cab]!\n\tabc_d", "x" * 500])
def test_plain_text_is_looked_up(text: str) -> None:
    """Ordinary ASCII isn't left to the tokenizer, brackets and line breaks included."""
    for lookup in LOOKUPS:
        assert lookup.ids(text) is not None


@pytest.mark.parametrize("text", ["é", "a\x00b", "a [CLS] b", "a [cls] b", "a\x1cb", "\u212a"])
def test_other_text_is_not(text: str) -> None:
    """What isn't ASCII, is a control character or spells a special token is the tokenizer's."""
    for lookup in LOOKUPS:
        assert lookup.ids(text) is None


def test_only_a_word_by_word_tokenizer_fits() -> None:
    """BERT's parts fit; another model, normaliser or way to split doesn't."""
    assert all(WordLookup.fits(tokenizer) for tokenizer in TOKENIZERS)
    assert not WordLookup.fits(tiny.tokenizer())
    other = bert()
    other.normalizer = normalizers.Replace("a", "b c")
    assert not WordLookup.fits(other)
    other = bert()
    other.pre_tokenizer = pre_tokenizers.Whitespace()
    assert not WordLookup.fits(other)


def test_words_held_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more words are remembered than allowed, and no long one, at the same tokens."""
    monkeypatch.setattr(words, "_MOST_WORDS", 3)
    monkeypatch.setattr(words, "_LONGEST", 4)
    tokenizer = bert()
    lookup = WordLookup(tokenizer)
    held = words._Known(tokenizer)
    for text in ("a", "b", "c", "abcde", "d", "e"):
        assert lookup.ids(text) == tokenizer.encode(text).ids
        assert held[text] == tokenizer.encode(text, add_special_tokens=False).ids
        assert len(held) <= 3
        assert "abcde" not in held


@given(TEXTS.map("".join), st.integers(4, 9), st.integers(1, 3), st.sampled_from(["", "cab: "]))
def test_the_tokenizer_gives_the_same_by_either_way(
    bert_file: Path, text: str, max_tokens: int, max_chunks: int, prompt: str
) -> None:
    """Chunks, spans and truncation are the same with the look-up as without it."""
    tokenizer = Tokenizer(
        bert_file, max_tokens=max_tokens + 2, max_chunks=max_chunks, overlap=1, prompt=prompt
    )
    found = tokenizer.encode(text)
    tokenizer._words = None
    assert found == tokenizer.encode(text)


@pytest.fixture(scope="module")
def bert_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT's tokenizer as a file."""
    path = tmp_path_factory.mktemp("bert") / "tokenizer.json"
    bert().save(str(path))
    return path
