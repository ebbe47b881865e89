"""A record that ends the process becomes a dead letter; one that was merely there does not."""

from __future__ import annotations

import json
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from harness.audit import read_topic
from harness.faults import Trial
from harness.flow import Flow, Supervised
from harness.workload import EXPECT
from tests.integration.deadly import MARKER
from tests.integration.pipeline import Pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from harness.broker import Broker

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

TRYING = "trying suspects"


def test_a_record_that_ends_the_process(broker: Broker, tmp_path: Path, texts: list[str]) -> None:
    """After three deaths it is a dead letter as it was written, and all others are embedded."""
    pipeline = Pipeline(broker, tmp_path, workers=2)
    pipeline.flow = Flow(
        pipeline.environment,
        workers=2,
        recovery=tmp_path / "recovery",
        log=tmp_path / "flow.log",
        flow="tests.integration.deadly",
    )
    for number, text in enumerate(texts[:300]):
        poison = number == 150
        value = json.dumps({"text": f"{text} {MARKER}" if poison else text}).encode()
        expect = b"poison" if poison else b"embedding"
        pipeline.put_raw(b"doc%d" % number, value, [(EXPECT, expect), ("own", b"kept")])
    pipeline.producer.flush()
    with Supervised(pipeline.flow) as supervised:
        pipeline.wait(lambda: pipeline._behind() == 0, 300)
    report = pipeline.audit(lambda given: given)
    assert report.clean, str(report)
    assert report.outcomes == {"embedding": 299, "poison": 1}
    assert supervised.exits == [[-signal.SIGKILL]] * 3
    [letter] = read_topic(broker.bootstrap_servers, pipeline.topics.dead_letters)
    assert letter.key() == b"doc150"
    assert MARKER in json.loads(letter.value() or b"")["text"]
    assert dict(letter.headers() or ())["own"] == b"kept"


def test_kills_from_outside(broker: Broker, tmp_path: Path, texts: list[str]) -> None:
    """Kills at random moments, one of them while suspects are tried, make no dead letter."""
    with Trial(broker, tmp_path, texts, records=1200, workers=2, rate=150, seed=21) as trial:
        while (tried := trial.flow.log_text().count(TRYING)) < 1 and len(trial.disturbances) < 6:
            trial.kill_at_random()
            _await_start(trial)
        assert tried, "no kill has hit the model at work"
        trial.kill_at_random()
        _await(trial, TRYING, tried)
        time.sleep(random.Random(21).uniform(0, 0.05))  # noqa: S311 - reproducible, not secret
        trial.flow.kill()
        trial.kill_at_random()
        result = trial.finish()
    assert result.clean, str(result)
    assert "poison" not in result.report.outcomes
    assert trial.flow.restarts >= 4


def _await(trial: Trial, words: str, times: int) -> None:
    """Wait until the flow's log has some words more often than so many times; not for ever."""
    deadline = time.monotonic() + 30
    while trial.flow.log_text().count(words) <= times and time.monotonic() < deadline:
        time.sleep(0.002)


def _await_start(trial: Trial) -> None:
    """Wait until the flow that was killed is past its suspects."""
    _await(trial, "lane starts", trial.flow.log_text().count("lane starts"))
