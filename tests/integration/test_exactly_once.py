"""One outcome a record and an exact table, whatever is killed. `make soak` runs these at length."""

from pathlib import Path

import pytest

from harness.broker import Broker
from harness.faults import Trial

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]


def test_kills_of_a_two_worker_flow(broker: Broker, tmp_path: Path, texts: list[str]) -> None:
    """Kills, a lost recovery folder and a third worker change nothing."""
    with Trial(broker, tmp_path, texts, records=4000, workers=2, rate=200, seed=11) as trial:
        trial.kill_at_random()
        trial.kill_between_commits("table")
        trial.lose_recovery()
        trial.kill_between_commits("topic")
        trial.rescale(workers=3)
        result = trial.finish()
    assert result.clean, str(result)
    assert result.report.records == 4000


def test_kills_of_one_of_two_processes(broker: Broker, tmp_path: Path, texts: list[str]) -> None:
    """A cluster of two processes, of which one or the other is killed, changes nothing."""
    with Trial(broker, tmp_path, texts, records=2000, processes=2, rate=150, seed=12) as trial:
        trial.kill_at_random()
        trial.kill_at_random()
        result = trial.finish()
    assert result.clean, str(result)


def test_kills_of_the_tables_writer(broker: Broker, tmp_path: Path, texts: list[str]) -> None:
    """The process that writes the table, killed alone, ends the flow; the restart is exact."""
    with Trial(broker, tmp_path, texts, records=2000, processes=2, rate=150, seed=16) as trial:
        for _ in range(3):
            trial.kill_writer()
            trial.await_progress()
        result = trial.finish()
        log = trial.flow.log_text()
    assert result.clean, str(result)
    assert "headrace: table writer: process" in log
    assert trial.flow.restarts >= 3


def test_a_second_copy_fences_the_first(broker: Broker, tmp_path: Path, texts: list[str]) -> None:
    """The first copy ends by itself with an error, and no record has two outcomes or two rows."""
    with Trial(broker, tmp_path, texts, records=2000, rate=150, seed=13) as trial:
        codes = trial.start_second_copy()
        result = trial.finish()
    assert result.clean, str(result)
    assert codes != [0]


def test_a_killed_broker(tmp_path: Path, texts: list[str]) -> None:
    """A broker that is killed with -9 and comes back loses and doubles nothing."""
    with (
        Broker(folder=tmp_path / "kafka") as own,
        Trial(own, tmp_path, texts, records=2000, rate=150, seed=14) as trial,
    ):
        trial.kill_broker(away_s=3.0)
        result = trial.finish()
    assert result.clean, str(result)


def test_the_count_can_fail(broker: Broker, tmp_path: Path, texts: list[str]) -> None:
    """With the topic sink's guard off, the same count finds duplicates."""
    with Trial(
        broker, tmp_path, texts, records=3000, rate=300, seed=15, module="harness.unguarded"
    ) as trial:
        trial.kill_between_commits("topic")
        trial.kill_between_commits("topic")
        result = trial.finish()
    assert result.report.duplicates
    assert result.reader_faults
