"""Text to tokens."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import UsageError
from operators.encoding import Prefixed
from operators.tokenize import Tokenizer
from tests.operators.model import tiny

if TYPE_CHECKING:
    from pathlib import Path

    from operators.splitting import Split

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer whose words are single letters, between two special tokens."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tiny.tokenizer().save(str(path))
    return path


@pytest.mark.parametrize(
    ("letters", "truncated"), [(0, False), (1, False), (4, False), (5, True), (26, True)]
)
def test_truncation_is_told_exactly(file: Path, letters: int, truncated: bool) -> None:
    """A text is truncated just when it has more tokens than fit beside the special ones."""
    text = " ".join(LETTERS[:letters])
    found = Tokenizer(file, max_tokens=6).encode(text)
    (chunk,) = found.chunks
    assert found.truncated is truncated
    assert chunk.tokens == min(letters, 4) + 2
    assert (chunk.start, chunk.end) == (0, 7 if truncated else len(text))


@given(st.text("ab  ", max_size=400), st.integers(1, 5), st.integers(0, 3))
def test_chunks_cover_what_is_kept(text: str, max_chunks: int, overlap: int) -> None:
    """Chunks leave out nothing but white space, and all of the text unless it is truncated."""
    import tempfile  # noqa: PLC0415 - a fixture can't be mixed with Hypothesis here
    from pathlib import Path  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        tiny.tokenizer().save(str(path))
        tokenizer = Tokenizer(path, max_tokens=7, max_chunks=max_chunks, overlap=overlap)
    found = tokenizer.encode(text)
    spans = [(chunk.start, chunk.end) for chunk in found.chunks]
    assert len(spans) <= max_chunks
    assert spans[0][0] == 0
    for (_, end), (start, _) in pairwise(spans):
        assert start <= end or not text[end:start].strip()
    assert (spans[-1][1] == len(text)) or found.truncated


def test_chunks_overlap_by_tokens(file: Path) -> None:
    """Each chunk repeats the last tokens of the one before, and spans say which characters."""
    found = Tokenizer(file, max_tokens=6, max_chunks=9, overlap=1).encode("a b c d e f g")
    assert [chunk.ids[1:-1] for chunk in found.chunks] == [[4, 5, 6, 7], [7, 8, 9, 10]]
    assert [(chunk.start, chunk.end) for chunk in found.chunks] == [(0, 7), (6, 13)]
    assert not found.truncated


def test_more_chunks_than_kept_is_truncated(file: Path) -> None:
    """A text that goes on after the last chunk kept is truncated."""
    text = " ".join(LETTERS)
    assert Tokenizer(file, max_tokens=6, max_chunks=2, overlap=1).encode(text).truncated
    assert not Tokenizer(file, max_tokens=6, max_chunks=9, overlap=1).encode(text).truncated


def test_prompt_comes_before_text_and_not_into_spans(file: Path) -> None:
    """The prompt's tokens come first, and count to the length but not to the span."""
    found = Tokenizer(file, max_tokens=6, prompt="search : ").encode("a b c")
    (chunk,) = found.chunks
    assert chunk.ids == [2, tiny.WORDS.index("search"), tiny.WORDS.index(":"), 4, 5, 3]
    assert (chunk.start, chunk.end) == (0, 3)
    assert found.truncated


def test_every_chunk_has_the_prompt(file: Path) -> None:
    """With several chunks each begins with the prompt, and none is longer than allowed."""
    tokenizer = Tokenizer(file, max_tokens=7, max_chunks=9, overlap=1, prompt="search : ")
    found = tokenizer.encode("a b c d e")
    assert [chunk.ids[3:-1] for chunk in found.chunks] == [[4, 5, 6], [6, 7, 8]]
    assert all(chunk.ids[1] == tiny.WORDS.index("search") for chunk in found.chunks)
    assert max(chunk.tokens for chunk in found.chunks) == 7


@pytest.mark.parametrize("split", ["tokens", "sentences", "markdown"])
def test_every_chunk_has_the_prefix(file: Path, split: Split) -> None:
    """Each begins with the document's prefix, behind the prompt, and spans don't count it."""
    tokenizer = Tokenizer(file, max_tokens=13, max_chunks=9, prompt="search : ", split=split)
    text = " ".join(LETTERS)
    found = tokenizer.encode(Prefixed(" z y x ", text))
    ids = [tiny.WORDS.index(word) for word in ("search", ":", "z", "y")]
    assert [chunk.ids[1:5] for chunk in found.chunks] == [ids] * 4
    assert [chunk.tokens for chunk in found.chunks] == [13, 13, 13, 11]
    assert (
        "".join(text[chunk.start : chunk.end] for chunk in found.chunks).replace(" ", "") == LETTERS
    )
    assert not found.truncated


def test_a_prefix_may_be_nothing_or_odd(file: Path) -> None:
    """Without tokens it changes nothing; of a giant one as much is taken as there is room for."""
    tokenizer = Tokenizer(file, max_tokens=10)
    bare = tokenizer.encode("a b")
    assert [tokenizer.encode(Prefixed(odd, "a b")) for odd in ("", " \n")] == [bare] * 2
    giant = tokenizer.encode(Prefixed("z \ud800" * 100_000, "a b c d e f g h"))
    assert giant.chunks[0].ids[1:4] == [29, tiny.WORDS.index("[UNK]"), 4]
    assert giant.truncated
    one = tokenizer.encode(Prefixed("z", "a b c"))
    assert (one.chunks[0].ids, one.chunks[0].end) == ([2, 29, 4, 5, 6, 3], 5)


def test_a_hash_stands_for_the_tokens(file: Path) -> None:
    """Equal tokens have one hash, whatever their place, and others another."""
    tokenizer = Tokenizer(file, max_tokens=6, max_chunks=9)
    (first, second, third) = tokenizer.encode("a b c d a b c d a b c").chunks
    assert first.hash == second.hash != third.hash
    assert len({first.hash, tokenizer.encode(Prefixed("a", "b c d")).chunks[0].hash}) == 1


def test_empty_and_odd_texts_are_safe(file: Path) -> None:
    """Nothing, white space and lone surrogates each make one chunk, and spoil no neighbour."""
    found = Tokenizer(file, max_tokens=6).encode_batch(["", " \n ", "a \ud800 b", "c"])
    assert [len(text.chunks) for text in found] == [1, 1, 1, 1]
    assert [text.truncated for text in found] == [False] * 4
    assert found[2].chunks[0].end == 5
    assert found[3].chunks[0].ids == [2, 6, 3]


@pytest.mark.parametrize(
    "text", ["a b " * 225_000, "word" * 225_000, "a" + " " * 900_000 + "b c d e"]
)
def test_giant_text_takes_no_time(file: Path, text: str) -> None:
    """900 kB cost a fraction of a second, and truncation is told as for a short text."""
    tokenizer = Tokenizer(file, max_tokens=6)
    began = time.process_time()
    found = tokenizer.encode(text)
    assert time.process_time() - began < 1.5
    assert found.truncated is (len(text.split()) > 4)


def test_cut_of_a_giant_text_changes_no_token(file: Path) -> None:
    """A text far longer than what is kept gives the tokens that its beginning gives."""
    tokenizer = Tokenizer(file, max_tokens=6, max_chunks=3, overlap=1)
    short, giant = (tokenizer.encode(LETTERS_SPACED * times) for times in (1, 5000))
    assert giant.chunks == short.chunks
    assert giant.truncated


LETTERS_SPACED = " ".join(LETTERS) + " "


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"max_tokens": 2}, "model.max_tokens: 2"),
        ({"max_tokens": 4, "prompt": "search : "}, "model.max_tokens: 4"),
        ({"max_tokens": 6, "max_chunks": 0}, "model.max_chunks: 0"),
        ({"max_tokens": 6, "max_chunks": 2, "overlap": 4}, "model.chunk_overlap: 4"),
    ],
)
def test_limits_without_room_are_refused(file: Path, options: dict[str, int], setting: str) -> None:
    """Limits that leave no room for text are refused by the setting's name and value."""
    with pytest.raises(UsageError, match=setting):
        Tokenizer(file, **options)  # type: ignore[arg-type]
