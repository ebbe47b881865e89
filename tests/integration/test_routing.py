"""A table for each tenant has the guarantees of one table. `make soak` runs this at length."""

from pathlib import Path

import pytest

from harness.broker import Broker
from harness.faults import Trial

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]


def test_kills_of_a_flow_of_several_tables(
    broker: Broker, tmp_path: Path, texts: list[str]
) -> None:
    """Kills, also of the writer alone, and a second copy leave each document in its one table.

    Documents move among the tables all the while, are patched and deleted, and some records name a
    table that there can't be.
    """
    with Trial(
        broker, tmp_path, texts, records=2500, workers=2, rate=200, seed=21, tenants=5
    ) as trial:
        trial.kill_between_commits("table")
        trial.kill_writer()
        trial.start_second_copy()
        trial.kill_at_random()
        trial.kill_writer()
        result = trial.finish()
    assert result.clean, str(result)
    assert result.report.outcomes["bad_schema"] > 20
    assert len(list((tmp_path / "lancedb").glob("docs_t*.lance"))) == 5
