"""Each target for a moment, and the loop, which must find what is wrong."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from tests.fuzz.loop import Target, fuzz
from tests.fuzz.mutations import accidents
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes(name: str) -> None:
    """Nothing escapes: each input is taken, or refused by a known code."""
    found = fuzz(TARGETS[name], seconds=1.0)
    assert not found.crashes, f"{found}\n{[crash.trace for crash in found.crashes.values()]}"
    assert found.outcomes


def _target(check: object) -> Target:
    return Target("toy", st.binary(min_size=3, max_size=9), accidents, check)  # type: ignore[arg-type]


def _fails(given: bytes) -> str:
    if b"\xff" in given:
        raise KeyError(given)
    return "read"


def _nests(_: bytes) -> str:
    def deeper(left: int) -> None:
        if left:
            deeper(left - 1)

    deeper(1_000)
    return "read"


def _grows(given: bytes) -> str:
    return str(len(bytearray(given[:1] * (400 << 20))))[:1]


def test_what_escapes_is_found() -> None:
    """It is kept once, with the place where it was raised and the smallest input."""
    found = fuzz(_target(_fails), seconds=2.0)
    (crash,) = found.crashes.values()
    assert "KeyError" in crash.what
    assert "tests/fuzz/test_fuzz.py" in crash.what
    assert b"\xff" in crash.input
    assert found.outcomes["read"] > 0
    assert "1 crashes" in str(found)


def test_what_nests_too_deep_is_found() -> None:
    """A check has the frames that a program has, not those that Hypothesis adds."""
    found = fuzz(_target(_nests), seconds=0.3)
    assert any("RecursionError" in what for what in found.crashes)


def test_what_takes_too_much_is_found() -> None:
    """One input that takes hundreds of megabytes is a crash, whatever it gives."""
    found = fuzz(_target(_grows), seconds=0.5)
    assert any("MiB" in what for what in found.crashes)
