"""The commands where each record names its table."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer

from flows.access import encoder_of, routed_tables
from flows.settings import load
from harness.flow import Flow
from operators.records import Kind, Lane
from operators.routing import TABLE
from sinks.router import RoutedWriter
from sinks.rows import table_rows
from sinks.writer import TableWriter
from tests.cli.conftest import headrace, lines, until
from tests.operators.model.tiny import model_folder
from tests.samples import Fields, Row, outcomes, tombstone
from tests.sinks.tables import NEVER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flows.settings import Settings

TEMPLATE = "docs_{/metadata/tenant}"
DIRECTORY = "_headrace_directory-docs-metadata-tenant"


def settings_of(env: Mapping[str, str]) -> Settings:
    """The settings of the one pipeline that is meant."""
    return load(env, Path("/nowhere")).each()[0]


class Tables:
    """The tables of some settings, with their writer.

    Args:
        env: The settings.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        settings = settings_of(env)
        self._lane = Lane(settings.source.topics[0], 0)
        self._next = 0
        self._encoder = encoder_of(settings)
        self.store = routed_tables(settings, self._encoder)
        self.store.ensure()
        self._writer = RoutedWriter(self.store, NEVER, 1)

    def write(self, *documents: tuple[str, str, str]) -> None:
        """Commit documents, each as id, tenant and text; no text deletes one."""
        encoded = self._encoder.encode([text for _, _, text in documents])
        rows = [
            Row(Kind.UPSERT, name, 0, text, Fields(typed={TABLE: f"docs_{tenant}"}), vectors)
            if text
            else tombstone(name)
            for (name, tenant, text), vectors in zip(documents, encoded, strict=True)
        ]
        now = int(time.time() * 1000)
        batch = outcomes(rows, self._next, lane=self._lane, embedded_at=now)
        self._next = batch.end
        table = self.store.schema.rows(table_rows([batch]))
        self._writer.commit(table, {self._lane.key: batch.end})

    def announce(self, name: str) -> None:
        """Leave the directory as a writer does that is killed before it makes a table."""
        directory = TableWriter(self.store.directory, NEVER, 1)
        nothing = self.store.directory.schema.arrow.empty_table()
        directory.commit(nothing, {}, tables={**(directory.fence.tables or {}), name: 0})

    def lose(self, name: str) -> None:
        """Delete a table."""
        shutil.rmtree(self.store.table(name).path)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """The settings of several tables of a tiny model; there is no broker."""
    return {
        "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "HEADRACE_TABLE__URI": str(tmp_path / "lancedb"),
        "HEADRACE_TABLE__NAME": TEMPLATE,
        "HEADRACE_MODEL__NAME": str(model_folder(tmp_path / "model")),
        "HEADRACE_MODEL__CACHE": str(tmp_path / "cache"),
        "HEADRACE_MODEL__RUNTIME": "onnxruntime",
        "HEADRACE_MODEL__PRECISION": "fp32",
    }


@pytest.fixture
def reached(env: dict[str, str], fresh: dict[str, str]) -> dict[str, str]:
    """The same with a broker, and topics with nothing in them."""
    own = {name: value for name, value in env.items() if "KAFKA" not in name}
    whole = {**fresh, "HEADRACE_TABLE__COLUMNS": "{}", **own}
    assert headrace(whole, "topics", "create", "--partitions", "1").code == 0
    return whole


def test_search_in_one_of_them(env: dict[str, str]) -> None:
    """Only the table that is named is searched, and documents of no other are found."""
    tables = Tables(env)
    tables.write(("a", "x", "a b c"), ("b", "y", "a b c"), ("c", "x", "d e f"), ("d", "x", "a"))
    tables.write(("d", "x", ""))
    for table, wanted in (("docs_x", ["a", "c"]), ("docs_y", ["b"])):
        done = headrace(env, "search", "a b c", "--table", table, "--json")
        assert done.code == 0, done.err
        assert [item["id"] for item in done.json] == wanted


def test_search_without_a_table(env: dict[str, str]) -> None:
    """It has to be said which table, and the error tells which there are."""
    tables = Tables(env)
    done = headrace(env, "search", "a")
    told = f"headrace: --table: say which table of {TEMPLATE}; "
    assert (done.code, done.err) == (2, f"{told}there is none yet\n")
    tables.write(("a", "x", "a"))
    assert headrace(env, "search", "a").err == f"{told}there is docs_x\n"
    tables.write(*((f"d{n}", f"{n:02}", "a") for n in reversed(range(11))))
    names = ", ".join(f"docs_{n:02}" for n in range(10))
    assert headrace(env, "search", "a").err == f"{told}the first of 12 are {names}\n"


def test_search_in_what_is_not_there(env: dict[str, str]) -> None:
    """Tables that were never made, are just announced or were deleted are refused by name."""
    done = headrace(env, "search", "a", "--table", "docs_x")
    assert done.code == 1
    assert f"table.name: {TEMPLATE}: there are no such tables in " in done.err
    tables = Tables(env)
    tables.write(("a", "x", "a"), ("b", "lost", "b"))
    tables.announce("docs_soon")
    tables.lose("docs_lost")
    for name in ("docs_lost", "docs_soon", "docs_z", "documents", DIRECTORY, "../x", TEMPLATE):
        done = headrace(env, "search", "a", "--table", name)
        assert done.code == 1, name
        assert f"table: {name}: " in done.err
        assert done.err.count("\n") == 1


def test_search_with_another_model(env: dict[str, str]) -> None:
    """Words are never compared with another model's vectors."""
    Tables(env).write(("a", "x", "a"))
    changed = {**env, "HEADRACE_MODEL__MAX_TOKENS": "8"}
    done = headrace(changed, "search", "a", "--table", "docs_x")
    assert done.code == 1
    assert "but table docs_x holds vectors of" in done.err


@pytest.mark.kafka
def test_status(reached: dict[str, str]) -> None:
    """Progress is the directory's; of the tables each one and their sum are told."""
    before = headrace(reached, "status", "--json").json
    assert (before["table"], before["tables"], before["max_tables"]) == (None, [], 100)
    tables = Tables(reached)
    assert headrace(reached, "status", "--json").json["table"]["rows"] == 0
    tables.write(("a", "x", "a"), ("b", "y", "b"), ("c", "y", "c"), ("d", "lost", "d"))
    tables.write(("b", "y", ""))
    tables.announce("docs_soon")
    tables.lose("docs_lost")
    told = headrace(reached, "status", "--json").json
    assert [partition["table"] for partition in told["partitions"]] == [5]
    own = {one.pop("name"): one for one in told["tables"]}
    assert list(own) == ["docs_lost", "docs_soon", "docs_x", "docs_y"]
    counts = {name: (one["rows"], one["tombstones"]) for name, one in own.items()}
    nothing = (None, None)
    assert counts == {
        "docs_x": (1, 0),
        "docs_y": (1, 1),
        "docs_lost": nothing,
        "docs_soon": nothing,
    }
    assert own["docs_lost"]["newest"] is own["docs_lost"]["age_s"] is None
    table = told["table"]
    assert (table["name"], table["rows"], table["tombstones"]) == (TEMPLATE, 2, 1)
    assert table["newest"] == own["docs_y"]["newest"] > own["docs_x"]["newest"]
    assert 0 <= table["age_s"] <= own["docs_x"]["age_s"] < 600
    assert table["model"] == reached["HEADRACE_MODEL__NAME"]
    assert table["fingerprint"] == tables.store.fingerprint


@pytest.mark.kafka
def test_status_for_people(reached: dict[str, str]) -> None:
    """The largest tables come first, and of those that are left out there is a line."""
    tables = Tables(reached)
    tables.write(*((f"d{n}", f"{n:02}", "a") for n in range(23)), ("more", "17", "b"))
    shown = headrace(reached, "status").out
    assert f"table     {TEMPLATE} in " in shown
    assert ": 23 of 100 tables, 24 rows, 0 tombstones\n" in shown
    rows = [line.split() for line in shown.splitlines() if line.startswith(" docs_")]
    assert [row[0] for row in rows] == ["docs_17", *(f"docs_{n:02}" for n in range(20) if n != 17)]
    assert rows[0][1:3] == ["2", "0"]
    assert shown.endswith("and 3 more tables, none of them larger: --json has all\n")


@pytest.mark.parametrize(
    "options", [["--model", "x"], ["--status"], ["--rollback"], ["--drop-old"], ["--abandon"]]
)
def test_no_migration(env: dict[str, str], options: list[str]) -> None:
    """A template is refused whatever is asked, with the way out, and nothing is noted."""
    done = headrace(env, "migrate", *options)
    assert done.code == 2
    assert done.err.startswith(f"headrace: table.name: {TEMPLATE}: headrace migrate changes one ")
    for name in ("model.name", "kafka.application_id", "embeddings.topic", "dead_letters.topic"):
        assert name in done.err
    assert done.err.count("\n") == 1
    assert not Path(env["HEADRACE_TABLE__URI"]).exists()


def found(env: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What `headrace check` tells, by the first word of each thing's name."""
    return {item["name"].split()[0]: item for item in headrace(env, "check", "--json").json}


@pytest.mark.kafka
def test_check(reached: dict[str, str]) -> None:
    """The tables are looked at, and so are the records, which must name theirs."""
    told = found(reached)
    assert told["table"]["name"] == f"table {TEMPLATE}"
    assert told["table"]["message"].startswith("not there yet; the flow will make it in ")
    assert told["records"]["message"] == "there are none yet to try table.name on"
    assert not Path(reached["HEADRACE_TABLE__URI"]).exists()
    tables = Tables(reached)
    tables.write(("a", "x", "a"), ("b", "y", "b"))
    producer = Producer({"bootstrap.servers": reached["HEADRACE_KAFKA__BOOTSTRAP_SERVERS"]})
    [topic] = settings_of(reached).source.topics
    producer.produce(topic, b'{"text": "a"}', b"a")
    producer.flush()
    told = found(reached)
    assert (told["table"]["state"], told["records"]["state"]) == ("ok", "problem")
    assert told["table"]["message"].startswith("2 of 100 tables, 2 rows in ")
    assert "/metadata/tenant" in told["records"]["message"]
    producer.produce(topic, b'{"text": "a", "metadata": {"tenant": "x"}}', b"a")
    producer.flush()
    assert found(reached)["records"]["state"] == "warning"
    tables.lose("docs_y")
    told = found(reached)
    assert told["table"]["state"] == "ok"
    assert "docs_y is gone; its documents are read again" in told["table"]["message"]


@pytest.mark.kafka
def test_check_of_what_does_not_fit(reached: dict[str, str]) -> None:
    """Another model or other columns are a problem; no room for a further table is a warning."""
    Tables(reached).write(("a", "x", "a"), ("b", "y", "b"))
    for name, value, told in (
        ("MODEL__MAX_TOKENS", "8", "holds vectors of"),
        ("TABLE__COLUMNS", '{"price": "float64"}', "table.columns: "),
    ):
        item = found({**reached, f"HEADRACE_{name}": value})["table"]
        assert item["state"] == "problem"
        assert told in item["message"]
    for most in "12":
        item = found({**reached, "HEADRACE_TABLE__MAX_TABLES": most})["table"]
        assert item["state"] == "warning"
        assert item["message"].startswith(f"2 of {most} tables, 2 rows in ")
        assert "set a higher table.max_tables" in item["message"]


@pytest.mark.kafka
def test_load(reached: dict[str, str]) -> None:
    """A line that names no table, or none that can be, is refused before it is sent."""
    good: list[dict[str, Any]] = [
        {"id": "a", "text": "a", "metadata": {"tenant": "x"}},
        {"id": "b", "metadata": {"tenant": 7}},
        {"id": "c", "deleted": True},
    ]
    assert headrace(reached, "load", "-", "--json", stdin=lines(*good)).json["sent"] == 3
    for metadata in ({}, {"tenant": "x/y"}, {"tenant": None}, {"tenant": "x" * 300}):
        wrong = {"id": "d", "text": "a", "metadata": metadata}
        done = headrace(reached, "load", "-", stdin=lines(good[0], wrong))
        assert done.code == 1
        assert "line 2: " in done.err
        assert "bad_schema" in done.err
        assert "the 1 before it were sent" in done.err
        assert done.err.count("\n") == 1


@pytest.mark.kafka
def test_pipelines(reached: dict[str, str]) -> None:
    """Of two pipelines, each command knows by the name whether there is one table or several."""
    group = reached["HEADRACE_KAFKA__APPLICATION_ID"]
    own = ("SOURCE__TOPICS", "EMBEDDINGS__TOPIC", "DEAD_LETTERS__TOPIC", "TABLE__NAME")
    shared = {name: value for name, value in reached.items() if not name.endswith(own)}
    names = {"tickets": TEMPLATE, "orders": "orders"}
    pipelines = [
        {
            "name": name,
            "source": {"topics": [f"{group}.{name}"]},
            "embeddings": {"topic": f"{group}.{name}.out"},
            "dead_letters": {"topic": f"{group}.{name}.dead"},
            "table": {"name": table},
        }
        for name, table in names.items()
    ]
    both = {**shared, "HEADRACE_PIPELINES": json.dumps(pipelines)}
    assert headrace(both, "topics", "create", "--partitions", "1").code == 0
    tables = Tables({**both, "HEADRACE_PIPELINE": "tickets"})
    tables.write(("a", "x", "a"))
    # The other's table is one like these, but for its name.
    replace(tables.store.table("docs_x"), name="orders").ensure()
    search = ("search", "a", "--json", "--pipeline")
    assert len(headrace(both, *search, "tickets", "--table", "docs_x").json) == 1
    assert headrace(both, *search, "orders").json == []
    assert headrace(both, *search, "orders", "--table", "orders").json == []
    done = headrace(both, *search, "orders", "--table", "docs_x")
    told = "headrace: --table: docs_x: the only table is orders, as table.name says\n"
    assert (done.code, done.err) == (2, told)
    assert "say which table of docs_" in headrace(both, *search, "tickets").err
    tickets, orders = headrace(both, "status", "--json").json
    assert [one["name"] for one in tickets["tables"]] == ["docs_x"]
    assert "tables" not in orders
    assert "max_tables" not in orders
    assert orders["table"]["rows"] == 0
    assert headrace(both, "migrate", "--status", "--pipeline", "tickets").code == 2
    assert headrace(both, "migrate", "--status", "--pipeline", "orders").code == 0


@pytest.mark.kafka
def test_with_a_flow(reached: dict[str, str], tmp_path: Path) -> None:
    """From load to search: documents are in their tables, and what names none is a dead letter."""
    documents: list[dict[str, Any]] = [
        {"id": "a", "text": "a b", "metadata": {"tenant": "x"}},
        {"id": "b", "text": "a b", "metadata": {"tenant": "y"}},
        {"id": "c", "text": "a b", "metadata": {"tenant": "y"}},
    ]
    changes: list[dict[str, Any]] = [
        {"id": "c", "deleted": True},
        {"id": "a", "text": "a b c", "metadata": {"tenant": "y"}},
    ]
    assert headrace(reached, "load", "-", stdin=lines(*documents)).code == 0
    producer = Producer({"bootstrap.servers": reached["HEADRACE_KAFKA__BOOTSTRAP_SERVERS"]})
    [topic] = settings_of(reached).source.topics
    producer.produce(topic, b'{"text": "a"}', b"nowhere")
    producer.flush()

    def letters() -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = headrace(reached, "dead-letters", "list", "--json").json
        return listed

    def is_done() -> bool:
        told = headrace(reached, "status", "--json").json
        return all(one["table"] == one["committed"] == one["high"] for one in told["partitions"])

    with Flow(reached, recovery=tmp_path / "recovery", log=tmp_path / "flow.log") as flow:
        until(is_done, flow)
        assert headrace(reached, "load", "-", stdin=lines(*changes)).code == 0
        [letter] = letters()
        assert letter["code"] == "bad_schema"
        assert "/metadata/tenant" in letter["message"]
        replayed = headrace(reached, "dead-letters", "replay", "--code", "bad_schema")
        assert replayed.code == 0, replayed.err
        until(lambda: len(letters()) == 2, flow)
        until(is_done, flow)
    told = headrace(reached, "status", "--json").json
    counts = [(one["name"], one["rows"], one["tombstones"]) for one in told["tables"]]
    assert counts == [("docs_x", 0, 1), ("docs_y", 2, 1)]
    nearest = headrace(reached, "search", "a b c", "--table", "docs_y", "--json").json
    assert [item["id"] for item in nearest] == ["a", "b"]
    assert headrace(reached, "search", "a", "--table", "docs_x").out == "nothing found\n"
    assert headrace(reached, "check").code == 0


@pytest.mark.kafka
def test_init(reached: dict[str, str], tmp_path: Path) -> None:
    """What is found of a topic is written for one table; the template is a person's to set."""
    assert (
        headrace(
            reached,
            "load",
            "-",
            stdin=lines({"id": "a", "text": "a b", "metadata": {"tenant": "x"}}),
        ).code
        == 0
    )
    [topic] = settings_of(reached).source.topics
    output = tmp_path / "headrace.toml"
    done = headrace(reached, "init", "--topic", topic, "--output", str(output), "--json")
    assert done.code == 0, done.err
    assert done.json["settings"]["table"]["name"] == topic
    written = {**reached, "HEADRACE_CONFIG": str(output)}
    assert settings_of(written).table.name == TEMPLATE
