"""The commands where one settings file has several pipelines."""

from __future__ import annotations

import json

import pytest

from cli.follower import variables
from tests.cli.conftest import headrace, lines

pytestmark = pytest.mark.kafka


@pytest.fixture
def pair(fresh: dict[str, str]) -> dict[str, str]:
    """The settings of two pipelines with nothing in their world."""
    group = fresh["HEADRACE_KAFKA__APPLICATION_ID"]
    pipelines = [
        {
            "name": name,
            "source": {"topics": [f"{group}.{name}"]},
            "embeddings": {"topic": f"{group}.{name}.out"},
            "dead_letters": {"topic": f"{group}.{name}.dead"},
        }
        for name in ("tickets", "orders")
    ]
    own = ("SOURCE__TOPICS", "EMBEDDINGS__TOPIC", "DEAD_LETTERS__TOPIC")
    shared = {name: value for name, value in fresh.items() if not name.endswith(own)}
    return {**shared, "HEADRACE_PIPELINES": json.dumps(pipelines)}


def test_over_all_or_one(pair: dict[str, str]) -> None:
    """Topics, check and status go over all that are meant; a load needs one by name."""
    made = headrace(pair, "topics", "create", "--partitions", "1", "--json")
    assert made.code == 0, made.err
    names = [topic["name"].rpartition("over_all_or_one.")[2] for topic in made.json]
    assert {"tickets", "tickets.out", "tickets.dead", "orders.out"} <= set(names)
    assert len(names) == len(set(names))
    found = {item["name"]: item["state"] for item in headrace(pair, "check", "--json").json}
    assert set(found.values()) == {"ok"}
    assert {"settings", "tickets: kafka", "orders: table orders"} <= set(found)
    assert headrace(pair, "load", "-", stdin=lines({"id": "a", "text": "x"})).code == 2
    ship = lines({"id": "a", "text": "a ship"})
    assert headrace(pair, "load", "-", "--pipeline", "orders", stdin=ship).code == 0
    told = headrace(pair, "status", "--json").json
    assert [(one["pipeline"], one["lag"]) for one in told] == [("tickets", 0), ("orders", 1)]
    alone = headrace({**pair, "HEADRACE_PIPELINE": "orders"}, "status", "--json").json
    assert alone == headrace(pair, "status", "--pipeline", "orders", "--json").json | {
        "partitions": alone["partitions"]
    }
    assert headrace(pair, "status").out.count("pipeline ") == 2


def test_variables_of_a_pipeline() -> None:
    """What a migration changes is set for its pipeline alone."""
    changed: dict[str, str | int] = {"table.name": "x", "model.max_tokens": 9}
    assert variables(changed, "old-orders") == {
        "HEADRACE_PIPELINES__OLD_ORDERS__TABLE__NAME": "x",
        "HEADRACE_PIPELINES__OLD_ORDERS__MODEL__MAX_TOKENS": "9",
    }
    assert variables({"table.name": "x"}) == {"HEADRACE_TABLE__NAME": "x"}


@pytest.mark.parametrize(
    "command",
    [
        ["search", "words"],
        ["load", "-"],
        ["serve"],
        ["migrate", "--status"],
        ["dead-letters", "list"],
        ["dead-letters", "show", "0:0"],
        ["dead-letters", "replay", "--all"],
    ],
)
def test_one_must_be_named(pair: dict[str, str], command: list[str]) -> None:
    """What works on one pipeline says which there are, and refuses a name that is none."""
    done = headrace(pair, *command)
    assert (done.code, done.err) == (2, "headrace: --pipeline: say which: tickets, orders\n")
    done = headrace(pair, *command, "--pipeline", "x")
    assert done.code == 2
    assert done.err.startswith("headrace: pipeline: 'x': there is no such pipeline")
