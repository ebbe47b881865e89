"""Which fields are prose: what is worth embedding."""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING, Final

from operators.guess.looks import looks_like_code, word_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operators.guess.fields import Field

__all__ = ["guess_texts"]

TITLES: Final = frozenset(
    {"title", "subject", "headline", "heading", "caption", "summary", "name", "question"}
)
"""Words of the names of short texts, which stand before the long ones."""

HEADLINES: Final = frozenset({"title", "subject", "headline"})
"""Those of them that are texts of a record's own, even where many records have the same."""

BODIES: Final = frozenset(
    {
        *("body", "text", "content", "contents", "description", "message", "comment", "answer"),
        *("abstract", "details", "detail", "review", "excerpt", "note", "notes", "post", "article"),
        *("paragraph", "paragraphs", "msg", "remarks", "transcript", "overview", "bio"),
    }
)
PEOPLE: Final = frozenset(
    {
        *("user", "author", "owner", "actor", "person", "customer", "assignee", "creator", "agent"),
        *("sender", "recipient", "display", "first", "last", "host", "hostname", "file", "service"),
        *("org", "repo", "repository", "brand", "vendor", "company", "country", "city", "address"),
        *("street", "logger", "thread", "schema", "table", "requester", "reporter", "member"),
    }
)
"""Words that make a name one of something that the record is not about."""

OTHERS: Final = frozenset(
    {
        *("url", "uri", "href", "link", "image", "email", "type", "status", "state", "kind", "id"),
        *("html_url", "path", "agent", "token", "hash", "sha", "etag", "currency", "language"),
    }
)

MOST: Final = 4
"""How many fields a text is made of."""

PROSE_WORDS: Final = 5.0
"""Words, on average, of a text whose name does not tell that it is one."""

NAMED_WORDS: Final = 1.2
"""Words, on average, where the name does."""

LONG_WORDS: Final = 8.0
"""Words from which on texts may repeat, as of a log they do."""

REPEATED: Final = 0.3
"""The share of different texts, below which they are the names of kinds."""

CODE: Final = 0.5
"""The share of values made for machines, from which on the field is."""


def guess_texts(fields: Sequence[Field]) -> list[Field]:
    """The fields to embed, titles first; none if none is text at all."""
    prose = [field for field in fields if _is_prose(field)]
    chosen = sorted(prose, key=_weight, reverse=True)[:MOST]
    if not chosen:
        # Better a few words than nothing: what the names of things are like.
        short = [field for field in fields if _is_text(field) and not _is_other(field)]
        chosen = sorted(short, key=_weight, reverse=True)[:1]
    places = {id(field): place for place, field in enumerate(fields)}
    return sorted(chosen, key=lambda field: (not _is_title(field), places[id(field)]))


def texts_in(field: Field) -> list[str]:
    """The texts of a field; those of a list as one."""
    return [" ".join(value) if isinstance(value, list) else value for value in field.values]


def _is_text(field: Field) -> bool:
    if field.kind == "list":
        lists = field.values
        return _is_body(field) and all(isinstance(one, str) for each in lists for one in each)
    if field.kind != "string":
        return False
    texts = [text for text in field.values if text.strip()]
    return bool(texts) and fmean(map(looks_like_code, texts)) < CODE


def _is_prose(field: Field) -> bool:
    if not _is_text(field) or _is_other(field):
        return False
    words = _words(field)
    repeated = field.rows > 4 and field.distinct < REPEATED * len(field.values)
    if repeated and words < LONG_WORDS and not HEADLINES & set(field.words):
        return False
    return words >= (NAMED_WORDS if _is_title(field) or _is_body(field) else PROSE_WORDS)


def _is_title(field: Field) -> bool:
    return bool(TITLES & set(field.words))


def _is_body(field: Field) -> bool:
    return bool(BODIES & set(field.words))


def _is_other(field: Field) -> bool:
    """Whether its name tells that it is no text of the record's own."""
    words = set(field.words)
    if words & OTHERS and not words & BODIES:
        return True
    about = {part for name in field.path[-2:] for part in name.lower().replace("-", "_").split("_")}
    return "name" in words and bool((words | about) & PEOPLE)


def _words(field: Field) -> float:
    texts = texts_in(field)
    return fmean(map(word_count, texts)) if texts else 0.0


def _weight(field: Field) -> float:
    """How much a field has to say, over all records."""
    named = 20 * _is_title(field) + 20 * _is_body(field)
    share = len(field.values) / field.rows
    return share * (named + min(_words(field), 100.0)) / math.sqrt(len(field.path))
