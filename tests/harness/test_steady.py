"""What a long run is judged by."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.audit import Report
from harness.steady import Span, SteadyResult, Unlike

SPAN = Span(memory=700 << 20, files=100, versions=60, recovery=1 << 20, behind=50)


def result(*spans: Span) -> SteadyResult:
    """Of a run in which nothing was lost or doubled."""
    return SteadyResult(Report(), [], [], 1.0, list(spans))


def test_level_is_flat() -> None:
    """Ups and downs between two kills are none of its business."""
    more = replace(SPAN, memory=750 << 20, files=120)
    assert result(SPAN, more, SPAN, more, SPAN, more).clean


@pytest.mark.parametrize("what", ["memory", "files", "versions", "recovery"])
def test_growth_is_not(what: str) -> None:
    """Whatever grows by a third from the beginning to the end is seen."""
    more = replace(SPAN, **{what: getattr(SPAN, what) * 4 // 3})
    grown = result(SPAN, SPAN, SPAN, SPAN, SPAN, more)
    assert not grown.clean
    assert "GROWN" in str(grown)


def test_no_two_texts_are_alike() -> None:
    """However few lines they are made of."""
    texts = Unlike(["a", "b"])
    assert len({texts[number] for number in range(1000)}) == 1000
    assert texts[2:4] == ["2 a", "3 b"]
