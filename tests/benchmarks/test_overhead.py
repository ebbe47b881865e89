"""The cost of telemetry, measured in small."""

from __future__ import annotations

import pytest

from benchmarks.overhead import Variant, main, told
from benchmarks.rig import Drain


def drain(seconds: float, cpu_s: float) -> Drain:
    """A hundred documents."""
    return Drain(100, seconds / 2, seconds, cpu_s, 0.0, 0.0, {}, {})


def test_each_round_is_compared_with_itself() -> None:
    """A machine that gets slower from round to round does not change the shares."""
    variants = (Variant("off"), Variant("metrics"), Variant("more"))
    rounds = [
        [drain(slow, 1.0), drain(slow * cost, 1.1), drain(slow * 2, 2.0)]
        for slow, cost in ((10, 1.0), (20, 1.25), (40, 1.6))
    ]
    metrics, more = told(variants, rounds)
    assert metrics == (
        "metrics: 0.800 (0.625 to 1.000) of the documents a second of off, "
        "1.100 (1.100 to 1.100) of its CPU time, 3 rounds"
    )
    assert more == (
        "more: 0.500 (0.500 to 0.500) of the documents a second of off, "
        "2.000 (2.000 to 2.000) of its CPU time, 3 rounds"
    )


def test_a_variant_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    """It is one line that names the option, and nothing is started."""
    assert main(["--variants", "off,traces-of-nobody"]) == 2
    assert capsys.readouterr().err.startswith("benchmarks: --variants: traces-of-nobody: ")


@pytest.mark.kafka
def test_a_small_backlog(capsys: pytest.CaptureFixture[str]) -> None:
    """All variants drain it, spans come of the one that is traced, and the shares are told."""
    assert main(["--docs", "200", "--rounds", "1"]) == 0
    first, metrics, traces = capsys.readouterr().out.splitlines()
    assert first.startswith("round 1: off ")
    assert not first.endswith("; 0 spans so far")
    assert metrics.startswith("metrics: ")
    assert traces.startswith("traces: ")
    assert traces.endswith(" of its CPU time, 1 rounds")
