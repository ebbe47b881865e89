from __future__ import annotations

from typing import Any

from harness.texts import docstrings
from operators.guess.fields import fields_of
from operators.guess.texts import guess_texts

TEXTS = [found.text for found in docstrings(12)]


def guessed(*records: dict[str, Any]) -> list[str]:
    """Pointers to the texts of some records."""
    return [one.pointer for one in guess_texts(fields_of(records))]


def test_titles_come_first() -> None:
    """A title stands before the body wherever the record has it."""
    records = [{"body": text, "subject": text.splitlines()[0]} for text in TEXTS]
    assert guessed(*records) == ["/subject", "/body"]


def test_prose_by_any_name() -> None:
    """What reads as prose is text whatever it is called."""
    assert guessed(*({"zzz": text, "x": "red"} for text in TEXTS)) == ["/zzz"]


def test_what_is_made_for_machines() -> None:
    """Addresses, times, hashes, numbers, names of kinds and of people are no text."""
    records = [
        {
            "url": f"https://example.com/a/{number}",
            "at": f"2026-01-01T00:00:{number:02d}Z",
            "hash": f"{number:032x}",
            "status": ("in progress at last", "done and dusted now")[number % 2],
            "author": {"name": "Ada Lovelace the First"},
            "user_name": "Ada Lovelace",
            "blob": "QUJD" * 20,
            "text": text,
        }
        for number, text in enumerate(TEXTS)
    ]
    assert guessed(*records) == ["/text"]


def test_logs_repeat() -> None:
    """Lines of a log are text though there are few different ones."""
    line = "The connection to the database was lost and will be tried again"
    assert guessed(*[{"msg": line, "level": "info"}] * 10) == ["/msg"]


def test_titles_repeat() -> None:
    """A title is text though many records have the same; a name of a kind is not."""
    records = [{"title": "Oak stool", "summary": "Of wood", "body": text} for text in TEXTS]
    assert guessed(*records) == ["/title", "/body"]


def test_lists_of_paragraphs() -> None:
    """A list of texts is text if its name says so; tags are not."""
    records = [{"paragraphs": [text, text], "tags": ["a b c", "d"]} for text in TEXTS]
    assert guessed(*records) == ["/paragraphs"]


def test_scripts_without_blanks() -> None:
    """Chinese and Japanese, which have no blanks, are prose as well."""
    assert guessed({"a": "今日はとても良い天気なので散歩に行きましょう", "b": "x"}) == ["/a"]


def test_rather_a_few_words_than_none() -> None:
    """Where nothing is prose, the name of the thing is what is embedded; numbers never are."""
    assert guessed({"label": "lamp", "price": "12"}, {"label": "desk", "price": "7"}) == ["/label"]
    assert guessed({"a": 1, "b": "2026-01-01", "c": True}) == []
