from __future__ import annotations

import pytest

from operators.guess.markup import guess_markup


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["<p>One</p>", "Two<br/>three"], "html"),
        (["# Head\n\nSome words", "see [this](https://example.com)"], "markdown"),
        (["# Head <b>bold</b>"], "markdown"),
        (["a < b and c > d", "x <y@example.com>", "#1 in the list"], "none"),
        (["plain"] * 9 + ["<p>one of ten</p>"], "none"),
        ([" ", ""], "none"),
    ],
)
def test_markup(texts: list[str], wanted: str) -> None:
    """Markup is known by its tags and signs where a fair share of the texts has them."""
    assert guess_markup(texts) == wanted
