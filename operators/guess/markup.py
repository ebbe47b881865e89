"""What texts are written in."""

from __future__ import annotations

import re
from statistics import fmean
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Markup", "guess_markup"]

Markup = Literal["none", "html", "markdown"]

SHARE: Final = 0.2
"""The share of texts in which there is markup, from which on all are written in it."""

_HTML: Final = re.compile(
    r"</?(p|br|div|span|a|b|i|u|ul|ol|li|h[1-6]|em|strong|code|pre|table|tr|td|img|blockquote)"
    r"(\s[^<>]*)?/?>",
    re.IGNORECASE,
)
_MARKDOWN: Final = re.compile(
    r"^#{1,6} \S|^```|\[[^\]\n]+\]\([^)\s]+\)|\*\*\S[^*\n]*\*\*|^> \S", re.MULTILINE
)


def guess_markup(texts: Sequence[str]) -> Markup:
    """What some texts are written in."""
    written = [text for text in texts if text.strip()]
    if not written:
        return "none"
    html = fmean(_HTML.search(text) is not None for text in written)
    markdown = fmean(_MARKDOWN.search(text) is not None for text in written)
    # HTML may stand in Markdown, so Markdown wins where there is as much of it.
    if markdown >= SHARE and markdown >= html:
        return "markdown"
    return "html" if html >= SHARE else "none"
