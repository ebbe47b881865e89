"""A table for each tenant has the guarantees of one table. `make soak` runs this at length."""

import json
from datetime import timedelta
from pathlib import Path

import lancedb
import pytest

from harness.broker import Broker
from harness.faults import Trial
from harness.flow import Flow
from tests.integration.pipeline import Pipeline
from tests.integration.test_refusals import refusal

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]


def test_kills_of_a_flow_of_several_tables(
    broker: Broker, tmp_path: Path, texts: list[str]
) -> None:
    """Kills, also of the writer alone, and a second copy leave each document in its one table.

    Documents, of up to three chunks, move among the tables all the while, are patched and deleted,
    and some records name a table that there can't be.
    """
    chunks = {
        "HEADRACE_MODEL__MAX_CHUNKS": "3",
        "HEADRACE_MODEL__MAX_TOKENS": "16",
        "HEADRACE_MODEL__CHUNK_OVERLAP": "4",
    }
    trial = Trial(
        broker,
        tmp_path,
        texts,
        records=2500,
        workers=2,
        rate=150,
        seed=21,
        tenants=5,
        settings=chunks,
    )
    with trial:
        trial.kill_between_commits("table")
        trial.kill_writer()
        trial.start_second_copy()
        trial.kill_at_random()
        trial.kill_writer()
        result = trial.finish()
    assert result.clean, str(result)
    assert result.report.outcomes["bad_schema"] > 20
    assert len(list((tmp_path / "lancedb").glob("docs_t*.lance"))) == 5


def ticket(number: int, tenant: str) -> bytes:
    """A record of another shape than Headrace's own."""
    return json.dumps({"tenant": tenant, "subject": f"Ticket {number}", "body": "words"}).encode()


def held(folder: Path) -> dict[str, set[str]]:
    """The documents of each table."""
    database = lancedb.connect(str(folder / "lancedb"), read_consistency_interval=timedelta(0))
    names = [name for name in database.list_tables().tables if name.startswith("t_")]
    tables = {name: database.open_table(name).to_lance() for name in names}
    return {
        name: set(own.to_table(["id"], filter="NOT deleted").column("id").to_pylist())
        for name, own in tables.items()
    }


def test_one_table_too_many(broker: Broker, tmp_path: Path) -> None:
    """The flow ends by the setting's name; with a higher one it goes on, and nothing was lost."""
    settings = {
        "HEADRACE_TABLE__NAME": "t_{/tenant}",
        "HEADRACE_TABLE__MAX_TABLES": "2",
        "HEADRACE_SOURCE__TEXT": "{/subject}. {/body}",
    }
    pipeline = Pipeline(broker, tmp_path, settings=settings)
    for number in range(30):
        pipeline.put_raw(b"%d" % number, ticket(number, "ab"[number % 2]))
    pipeline.producer.flush(30)
    with pipeline:
        pipeline.wait(lambda: sum(map(len, held(tmp_path).values())) == 30)
        pipeline.put_raw(b"0", ticket(0, "c"))
        pipeline.put_raw(b"1", None)
        pipeline.producer.flush(30)
        assert pipeline.flow.wait(60) == [1]
    [line] = [one for one in pipeline.flow.log_text().splitlines() if one.startswith("headrace: ")]
    assert line.startswith("headrace: table.max_tables: 2: t_c would be one more")
    even, odd = ({f"{number}" for number in range(first, 30, 2)} for first in (0, 1))
    more = {**pipeline.environment, "HEADRACE_TABLE__MAX_TABLES": "3"}
    with Flow(more, recovery=tmp_path / "recovery", log=tmp_path / "more.log"):
        wanted = {"t_a": even - {"0"}, "t_b": odd - {"1"}, "t_c": {"0"}}
        pipeline.wait(lambda: held(tmp_path) == wanted)
        pipeline.wait(lambda: len(pipeline.outputs()) == 32)


def test_records_that_name_no_table(broker: Broker, tmp_path: Path) -> None:
    """A first start on records none of which names its table ends with one line that says why."""
    settings = {"HEADRACE_TABLE__NAME": "t_{/metadata/tenant}"}
    pipeline = Pipeline(broker, tmp_path, settings=settings)
    for number in range(5):
        pipeline.put(f"{number}", "words", metadata={"customer": "a"})
    pipeline.producer.flush(30)
    code, line = refusal(pipeline.environment)
    assert code == 2
    assert line.startswith("headrace: table.name: none of the 5 newest records fits")
    assert "/metadata/tenant: nothing is there" in line
