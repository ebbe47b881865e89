"""Texts to measure on: fixed, varied in subject and length, made from words.

Each subject has its own words, and each text mixes a subject's words with common ones, so that
texts have near and far neighbours as real ones do.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NEAR", "TEXTS", "mixed"]

_SUBJECTS: Final = (
    "harbour ship tide anchor sailor rope storm lighthouse cargo captain",
    "database query index table transaction column replica cache schema storage",
    "bread flour oven yeast butter salt recipe crust dough kitchen",
    "planet orbit telescope star galaxy comet gravity moon rocket astronomer",
    "violin concert orchestra melody rhythm piano singer chord opera audience",
    "doctor patient hospital fever vaccine surgery nurse heart medicine pain",
    "goal match referee player stadium league coach penalty season team",
    "court judge lawyer contract verdict evidence witness appeal law jury",
    "forest oak fox river moss owl mushroom trail deer winter",
    "bank loan interest market share profit investor currency price budget",
    "train station platform ticket signal railway bridge tunnel engine driver",
    "garden rose soil seed spring bee tomato fence rain harvest",
)
_COMMON: Final = (
    "the a of in on with for from and or but not very old new small large first last good "
    "finds makes takes gives shows keeps opens leaves needs brings after before while near under"
)
_COUNT: Final = 128
_NEAR: Final = 512
_MIXED: Final = 200
_MARKS: Final = (",", ".", " -", ":", " (", ")", ";", "?", "!", "/", '"', "'")


def _texts() -> tuple[str, ...]:
    """The sample; the same at every call."""
    dice = random.Random(20_01)  # noqa: S311 - no secret: the same texts on every machine
    common = _COMMON.split()
    texts = []
    for number in range(_COUNT):
        own = _SUBJECTS[number % len(_SUBJECTS)].split()
        # Mostly a sentence, at times a paragraph, rarely more than a model takes.
        size = min(320, max(2, round(dice.lognormvariate(2.5, 0.8))))
        words = [dice.choice(own if dice.random() < 0.55 else common) for _ in range(size)]
        texts.append(" ".join(words).capitalize() + ".")
    return tuple(texts)


def _near() -> tuple[str, ...]:
    """Short texts of few words; the same at every call."""
    dice = random.Random(20_03)  # noqa: S311 - as above
    common = _COMMON.split()
    texts = []
    for number in range(_NEAR):
        own = _SUBJECTS[number % 2].split()
        size = dice.randint(3, 8)
        words = [dice.choice(own if dice.random() < 0.25 else common) for _ in range(size)]
        texts.append(" ".join(words).capitalize() + ".")
    return tuple(texts)


def mixed(vocabulary: Sequence[str]) -> list[str]:
    """200 texts of words from all over a model's vocabulary; the same for the same vocabulary.

    Where a range of numbers is measured, the words of a dozen subjects reach too little of it.

    Args:
        vocabulary: in any order; what isn't a word is used, but seldom.
    """
    dice = random.Random(20_02)  # noqa: S311 - as above
    common = _COMMON.split()
    entries = sorted(vocabulary)
    words = [word for word in entries if word.isalpha() and len(word) > 1] or common
    return [_mixed(dice, common, words, entries) for _ in range(_MIXED)]


def _mixed(
    dice: random.Random, common: Sequence[str], words: Sequence[str], entries: Sequence[str]
) -> str:
    """One text: words, now and then a number or another entry, and marks."""
    parts = []
    for _ in range(min(200, max(1, round(dice.lognormvariate(2.4, 0.9))))):
        kind = dice.random()
        if kind < 0.4:
            word = dice.choice(common)
        elif kind < 0.9:
            word = dice.choice(words)
        elif kind < 0.95:
            word = str(dice.randrange(10 ** dice.randint(1, 4)))
        else:
            word = dice.choice(entries)
        parts.append(word + (dice.choice(_MARKS) if dice.random() < 0.15 else ""))
    return " ".join(parts).capitalize() + "."


TEXTS: Final = _texts()
"""128 texts of 2 to 320 words."""

NEAR: Final = _near()
"""512 texts that lie as near to each other as those of a large table.

Among a few unlike texts the nearest neighbours are the same however rough the vectors: of the
first 128, int8 keeps more than 99 %, and of 3,000 real ones 97 %.
"""
