"""Rows of a PostgreSQL become rows of the table: by recorded events, and live where it is."""

from __future__ import annotations

import json
import re
import tomllib
from typing import TYPE_CHECKING

import pytest

from harness.cdc import ChangeTrial
from harness.connect import JARS, Connect
from harness.debezium import PLAIN, RECORDED
from harness.postgres import Postgres, programs
from harness.process import ROOT
from tests.integration.pipeline import Pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from harness.broker import Broker

pytestmark = pytest.mark.kafka

LACKS = (
    ("PostgreSQL, on PATH or where Debian has it", programs() is None),
    ("Debezium in build/debezium: make debezium", not JARS.exists()),
)
live = pytest.mark.skipif(
    any(lacks for _, lacks in LACKS),
    reason="there is no " + ", and no ".join(what for what, lacks in LACKS if lacks),
)

SETTINGS = {
    "HEADRACE_SOURCE__FORMAT": "debezium",
    "HEADRACE_SOURCE__TEXT": "{/title?}{/text?}",
    "HEADRACE_SOURCE__METADATA": json.dumps({"active": {"at": "/active", "type": "bool"}}),
}


def test_recorded_events_become_a_table(broker: Broker, tmp_path: Path) -> None:
    """Everything but large values of one database, through the flow: each event has one outcome.

    What tells of no row leaves no trace, and the truncate is the one dead letter.
    """
    lines = (RECORDED / f"{PLAIN}.ndjson").read_text(encoding="utf-8").splitlines()
    events = [
        one
        for one in map(json.loads, lines)
        if not one["topic"].endswith((".articles", ".notes", ".logs"))
    ]
    with Pipeline(broker, tmp_path, partitions=3, settings=SETTINGS) as pipeline:
        for one in events:
            key, value = (
                None if one[part] is None else one[part].encode() for part in one if part != "topic"
            )
            pipeline.put_raw(key, value)
        pipeline.settle()
        rows, outputs = pipeline.rows(), pipeline.outputs()
    assert {name: row["text"] for name, row in rows.items()} == {
        "1": "Oak armchair",
        "20": "Pine table",
        "3": "Stool, back again",
        "4": "Shelf",
        '{"line":1,"order":7}': "Two armchairs of oak",
        '{"line":2,"order":9}': "A pine table",
    }
    assert rows["1"]["active"] is False
    told = [one for one in events if ".public." in one["topic"]]
    assert len(outputs) == len(told) < len(events)
    assert [one.outcome for one in outputs].count("bad_schema") == 1


@live
def test_what_the_docs_say_works(broker: Broker, tmp_path: Path) -> None:
    """Their SQL, their connector and their settings make a table that follows the database."""
    page = (ROOT / "docs" / "cdc.md").read_text(encoding="utf-8")
    [sql] = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    [wanted] = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    [toml] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    source = tomllib.loads(toml)["source"]
    settings = {
        f"HEADRACE_SOURCE__{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in source.items()
    }
    with (
        Postgres() as postgres,
        Pipeline(broker, tmp_path, source=source["topics"][0], settings=settings) as pipeline,
        Connect(broker, tmp_path / "connect", f"{pipeline.name}-connect") as connect,
    ):
        postgres.run(
            "CREATE TABLE products (id int PRIMARY KEY, title text, description text, "
            "category text, price numeric(10, 2))",
            "INSERT INTO products VALUES (1, 'Oak chair', null, 'chairs', 129.9)",
            sql,
        )
        own = {**postgres.settings, "database.user": "debezium"}
        connect.create("products", {**json.loads(wanted), **own})
        pipeline.wait(lambda: list(pipeline.rows()) == ["1"])
        postgres.run(
            "INSERT INTO products VALUES (2, 'Pine table', 'For six.', 'tables', 80)",
            "UPDATE products SET price = 99.5 WHERE id = 1",
            "DELETE FROM products WHERE id = 2",
            "UPDATE products SET id = 3 WHERE id = 1",
        )
        pipeline.wait(lambda: list(pipeline.rows()) == ["3"])
        [row] = pipeline.rows().values()
    assert (row["text"], row["price"]) == ("Oak chair.", 99.5)
    assert json.loads(row["metadata"]) == {"category": "chairs"}


@live
def test_a_database_becomes_a_table(broker: Broker, tmp_path: Path, texts: list[str]) -> None:
    """From nothing to a table that equals the database, with Kafka Connect and the flow killed."""
    with ChangeTrial(broker, tmp_path, texts, records=160, rows=50, seed=5) as trial:
        trial.kill_connect()
        trial.kill_at_random()
        result = trial.finish()
    assert result.clean, str(result)
    assert result.report.table_rows > 0
