from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from benchmarks.control import AUTO, BATCH_TOKENS, FP32, NAIVE, Control, _sorted

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ["a ship", "left the harbour before the storm", "x" * 50, "one two three " * 60] * 9


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Control:
    """The controls of the default model."""
    empty: Path = tmp_path_factory.mktemp("control") / "headrace.toml"
    empty.touch()
    return Control({"HEADRACE_CONFIG": str(empty)})


def test_calls_hold_all_rows_within_the_limit() -> None:
    """Sorted calls pad to at most 512 tokens, a longer text alone, and none is left out."""
    dice = random.Random(1)  # noqa: S311 - no secret
    rows = [[number] * dice.choice((1, 5, 30, 200, 256, 700)) for number in range(300)]
    calls = list(_sorted(rows))
    assert sorted(row for call in calls for row in call) == sorted(rows)
    assert all(len(call) * len(call[-1]) <= BATCH_TOKENS or len(call) == 1 for call in calls)
    assert list(_sorted([])) == []


def test_every_control_encodes_all(control: Control) -> None:
    """Each counts the same tokens; sorting leaves less padding than the order of arrival."""
    naive, fp32, auto = (control.run(subject, TEXTS) for subject in (NAIVE, FP32, AUTO))
    assert naive.docs == fp32.docs == auto.docs == len(TEXTS)
    assert naive.tokens == fp32.tokens == auto.tokens > 0
    assert naive.padded > fp32.padded == auto.padded >= fp32.tokens
    assert fp32.cpu_s > 0
    assert fp32.ended > fp32.started
