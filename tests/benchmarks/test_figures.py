import pytest

from benchmarks.control import AUTO, FP32
from benchmarks.figures import Figure, Result, Trial, summed_up
from benchmarks.subjects import FLOW


def trial(subject: str, number: int, docs: int, wall_s: float, cpu_s: float) -> Trial:
    """A trial of short texts in one process."""
    return Trial("short", 1, subject, number, docs, wall_s, cpu_s)


def result_of(trials: list[Trial], subject: str) -> Result:
    """What is summed up of a subject."""
    return next(one for one in summed_up(trials) if one.subject == subject)


def numbers(figure: Figure | None) -> tuple[float, float, float]:
    """Median, lowest and highest."""
    assert figure is not None
    return figure.median, figure.low, figure.high


def test_ratios_are_within_a_round() -> None:
    """A machine that is half as fast in one round changes no ratio."""
    trials = [
        *(trial(FP32, 0, 100, 1.0, 1.0), trial(AUTO, 0, 100, 0.5, 0.5)),
        *(trial(FLOW, 0, 100, 0.8, 0.6), trial("loop", 0, 10, 1.0, 0.5)),
        *(trial(FP32, 1, 100, 2.0, 2.0), trial(AUTO, 1, 100, 1.0, 1.0)),
        *(trial(FLOW, 1, 100, 1.6, 1.2), trial("loop", 1, 10, 2.0, 1.0)),
    ]
    flow, loop = result_of(trials, FLOW), result_of(trials, "loop")
    assert numbers(flow.docs_per_s) == pytest.approx((93.75, 62.5, 125))
    for found, expected in (
        (flow.docs_per_s_control, 1.25),
        (flow.docs_per_s_model, 0.625),
        (flow.docs_per_cpu_s_control, 5 / 3),
        (flow.docs_per_cpu_s_model, 5 / 6),
        (loop.docs_per_s_flow, 12.5),
        (loop.docs_per_cpu_s_flow, 25 / 3),
    ):
        assert numbers(found) == pytest.approx((expected,) * 3)


def test_fp32_is_the_model_alone_where_nothing_better_was_chosen() -> None:
    """Without a run of another runtime, the flow is held against the control itself."""
    trials = [trial(FP32, 0, 100, 1.0, 1.0), trial(FLOW, 0, 100, 2.0, 1.25)]
    found = result_of(trials, FLOW).docs_per_cpu_s_model
    assert numbers(found) == pytest.approx((0.8,) * 3)


def test_padding_is_a_share_of_what_went_through() -> None:
    """A quarter of padding is a quarter; a subject that does not count tokens has none."""
    counted = Trial("short", 1, FP32, 0, 10, 1.0, 1.0, tokens=150, padded=200)
    trials = [counted, trial("loop", 0, 10, 1.0, 1.0)]
    assert result_of(trials, FP32).padding == 0.25
    assert result_of(trials, FP32).tokens == 15
    assert result_of(trials, "loop").padding is None
