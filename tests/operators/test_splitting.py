from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.splitting import WINDOW, splitter_of
from tests.operators.model import tiny

if TYPE_CHECKING:
    from operators.splitting import Split

SPLITS: list[Split] = ["tokens", "sentences", "markdown"]
TOKENIZER = tiny.tokenizer()

PIECES = st.sampled_from(
    [
        *("a b c. ", "d e! ", "\n", "\n\n", "# f\n\n", "## g\n", "- h\n", "> ", "![[", "```\n"),
        *("|a|b|\n", " ", "ü é. ", "漢字。", "👩\u200d👧 ", "\r\n", "\x00", "\u200b", "*a*", "<b>"),
    ]
)


def tokens(text: str) -> int:
    """How many a text has."""
    return len(TOKENIZER.encode(text, add_special_tokens=False).ids)


@settings(max_examples=300, deadline=None)
@given(
    split=st.sampled_from(SPLITS),
    text=st.lists(PIECES, max_size=60).map("".join) | st.text(max_size=200),
    room=st.integers(1, 9),
    most=st.integers(1, 40),
    overlap=st.integers(0, 2),
)
def test_chunks_cover_a_text(split: Split, text: str, room: int, most: int, overlap: int) -> None:
    """Chunks are in order, leave out nothing but white space, and none has too many tokens."""
    text = text.encode(errors="replace").decode()
    overlap = overlap if room > overlap else 0
    spans, truncated = splitter_of(split, TOKENIZER, overlap).cut(text, room, most)
    assert 1 <= len(spans) <= most
    assert spans[0][0] == 0
    assert all(tokens(text[start:end]) <= room for start, end in spans)
    for (first, end), (start, last) in pairwise(spans):
        assert first < start <= last
        assert start <= end or not tokens(text[end:start])
        assert split == "tokens" or end <= start
    assert truncated is bool(tokens(text[spans[-1][1] :]))
    assert truncated or spans[-1][1] == len(text)


@pytest.mark.parametrize("split", SPLITS)
def test_ranges_are_of_characters(split: Split) -> None:
    """A range counts characters, not bytes, whatever a character takes."""
    text = "ä ö ü. é è ê. 漢 字 か. 🚢 👩 😀."
    spans, _ = splitter_of(split, TOKENIZER, 0).cut(text, 4, 9)
    assert [text[slice(*span)].strip() for span in spans] == [
        "ä ö ü.", "é è ê.", "漢 字 か.", "🚢 👩 😀."
    ]  # fmt: skip


def test_sentences_stay_whole() -> None:
    """A text is cut between sentences where whole ones fit, and else between words."""
    text = "a b c. d e.\n\nf g h i j k l m."
    spans, _ = splitter_of("sentences", TOKENIZER, 0).cut(text, 7, 9)
    assert [text[slice(*span)].strip() for span in spans] == ["a b c. d e.", "f g h i j k l", "m."]


def test_markdown_is_cut_at_headings() -> None:
    """A section that fits is a chunk of its own, with its heading."""
    text = "# a\n\nb c.\n\n# d\n\ne f.\n\n# g\n\nh."
    spans, _ = splitter_of("markdown", TOKENIZER, 0).cut(text, 8, 9)
    assert [text[slice(*span)].strip().split("\n")[0] for span in spans] == ["# a", "# d", "# g"]


@pytest.mark.parametrize("split", ["sentences", "markdown"])
def test_an_edit_moves_no_other_cut(split: Split) -> None:
    """Behind a paragraph that grew, the chunks are those from before."""
    parts = [f"# {letter}\n\n" + f"{letter} b c d. " * 3 for letter in "efghijkl"]
    old = "\n\n".join(parts)
    new = "\n\n".join([*parts[:2], parts[2] + "x y. ", *parts[3:]])

    def pieces(text: str) -> list[str]:
        spans, _ = splitter_of(split, TOKENIZER, 0).cut(text, 20, 99)
        return [text[slice(*span)].strip() for span in spans]

    assert len(set(pieces(new)) - set(pieces(old))) <= 2


@pytest.mark.parametrize("split", ["sentences", "markdown"])
@pytest.mark.parametrize("odd", ["![[", ">", "漢", "`", " ", "\n", "word"])
def test_work_is_bounded(split: Split, odd: str) -> None:
    """The library sees a window at a time, and no more of a text than the chunks that are kept."""

    class Counting:
        seen = 0

        def encode(self, text: str, **options: bool) -> object:
            Counting.seen += len(text)
            return TOKENIZER.encode(text, **options)

    text = (odd * 150_000)[:150_000]
    spans, _ = splitter_of(split, Counting(), 0).cut(text, 16, 10)  # type: ignore[arg-type]
    assert len(spans) <= 10
    assert Counting.seen < 150_000 + 16 * WINDOW * 10 * 20
