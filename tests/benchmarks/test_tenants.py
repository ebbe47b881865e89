"""What many tables cost beside one, measured in small."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.tenants import Cost, main, told

if TYPE_CHECKING:
    import pytest


def test_each_round_is_compared_with_itself() -> None:
    """A machine that gets slower from round to round does not change the multiples."""
    rounds = [[Cost(slow, 10 * slow), Cost(2 * slow, 40 * slow)] for slow in (10.0, 20.0, 80.0)]
    [line] = told([0, 7], rounds)
    assert line == (
        "7 of a template: 2.00 (2.00 to 2.00) times as long as one table, "
        "4.00 (4.00 to 4.00) times the CPU time, 3 rounds"
    )


def test_numbers_that_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    """It is one line that names the option."""
    assert main(["--tables", "1,x"]) == 2
    assert capsys.readouterr().err.startswith("benchmarks: --tables: 1,x: ")


def test_a_few_commits(capsys: pytest.CaptureFixture[str]) -> None:
    """The writers commit, and the multiple is told."""
    plan = ["--rows", "5", "--commits", "3", "--held", "20", "--rounds", "1"]
    assert main(["--tables", "0,2", *plan]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("round 1: a commit of 5 rows takes: one table ")
    assert last.startswith("2 of a template: ")
