"""HTML and Markdown to the text that a person reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import inscriptis
import pyromark

from operators.judging import reject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["MARKUP"]


def _plain(text: str) -> str:
    return text


def _html(text: str) -> str:
    if "<" not in text and "&" not in text:
        return text
    try:
        found: str = inscriptis.get_text(text)
    except (ValueError, RecursionError) as error:
        reject("bad_schema", f"the text can't be read as HTML: {error}")
    return found.strip()


def _markdown(text: str) -> str:
    # By its HTML: CommonMark lets HTML stand anywhere in it.
    return _html(pyromark.html(text, options=pyromark.Options.ENABLE_TABLES))


MARKUP: Final[Mapping[str, Callable[[str], str]]] = {
    "none": _plain,
    "html": _html,
    "markdown": _markdown,
}
"""What a text can be written in, and how it becomes plain."""
