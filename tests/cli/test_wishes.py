from __future__ import annotations

from typing import Any

import pytest

from cli.wishes import Wishes, with_wishes
from headrace.errors import UsageError

GUESSED: dict[str, Any] = {
    "topics": ["orders"],
    "id": "key",
    "text": ["/title", "/body"],
    "metadata": {"price": {"at": "/price", "type": "float64"}},
    "timestamp": "/at",
    "filter": "title || body",
}


def test_nothing_said() -> None:
    """Without a word the guesses stay."""
    assert with_wishes(GUESSED, Wishes()) == GUESSED


def test_what_is_said_wins() -> None:
    """Each option takes the place of its guess; none leaves the setting out."""
    said = Wishes(
        id="/sku",
        text="/name, /more",
        markup="html",
        metadata=["size=/size:int32", "all=/x:y"],
        timestamp="none",
        delete_when="gone",
        filter="live",
    )
    assert with_wishes(GUESSED, said) == {
        "topics": ["orders"],
        "id": "/sku",
        "text": ["/name", "/more"],
        "markup": "html",
        "metadata": {"size": {"at": "/size", "type": "int32"}, "all": {"at": "/x:y"}},
        "delete_when": "gone",
        "filter": "live",
    }
    assert "metadata" not in with_wishes(GUESSED, Wishes(metadata=["none"]))


@pytest.mark.parametrize("text", ["{/a}, {/b}", "/a", "jmespath: [a, b]"])
def test_texts_stay_whole(text: str) -> None:
    """Only pointers with commas between are several; and another text has no use for the filter."""
    changed = with_wishes(GUESSED, Wishes(text=text))
    assert changed["text"] == text
    assert "filter" not in changed


@pytest.mark.parametrize("said", ["price", "=/price", "price=price", "price=", "a=/a,,b=/b"])
def test_metadata_is_written_so(said: str) -> None:
    """A metadata field that is written otherwise is refused with an example."""
    with pytest.raises(UsageError, match="price=/price:float64"):
        with_wishes(GUESSED, Wishes(metadata=[said]))
