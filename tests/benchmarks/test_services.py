"""The services measured, in small."""

from __future__ import annotations

import logging
import re
import shutil
from typing import TYPE_CHECKING

import pytest
import structlog

from benchmarks.services import main

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def own_logs() -> Iterator[None]:
    """The benchmark sends logs to standard error, which is another one in the next test."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:], logging.root.level = handlers, level
    structlog.reset_defaults()


FIGURES = re.compile(r"^(.+): p50 ([\d.]+) ms, p99 ([\d.]+) ms, of (\d+)$")


def figures(printed: str) -> dict[str, int]:
    """How many requests each line is of."""
    found: dict[str, int] = {}
    for line in printed.splitlines():
        told = FIGURES.match(line)
        assert told is not None, line
        assert 0 < float(told[2]) <= float(told[3])
        found[told[1]] = int(told[4])
    return found


def test_searches(capsys: pytest.CaptureFixture[str]) -> None:
    """All modes find in a table of generated rows."""
    assert main(["search", "--rows", "400", "--requests", "5"]) == 0
    modes = ("vector", "text", "hybrid")
    assert figures(capsys.readouterr().out) == {f"search by {m}, 400 rows": 5 for m in modes}


def test_recommendations(capsys: pytest.CaptureFixture[str]) -> None:
    """Users of generated tables get recommendations, and strangers what is popular."""
    assert main(["recommend", "--rows", "400", "--requests", "5"]) == 0
    wanted = {"recommendations, 400 products": 5, "what is popular": 5}
    assert figures(capsys.readouterr().out) == wanted


@pytest.mark.kafka
def test_writes(capsys: pytest.CaptureFixture[str]) -> None:
    """Each write is found by a search that waits for it."""
    assert main(["after", "--rate", "5", "--seconds", "2"]) == 0
    assert figures(capsys.readouterr().out) == {"write accepted to found, 5 writes/s": 10}


def test_without_wrk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The load generator that is missing is named, with what brings it."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert main(["event"]) == 2
    assert (
        capsys.readouterr().err
        == "benchmarks: wrk: there is none; install it: apt-get install wrk\n"
    )
