from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from harness.process import HOST, free_port
from tests.cli.conftest import headrace

if TYPE_CHECKING:
    from pathlib import Path

    from harness.broker import Broker
    from harness.registry import Registry
    from tests.cli.conftest import World

pytestmark = pytest.mark.kafka


def states(found: list[dict[str, Any]]) -> dict[str, str]:
    """The state of each thing, by the first word of its name."""
    return {item["name"].split()[0]: item["state"] for item in found}


def test_all_well(world: World) -> None:
    """Where a flow has run, all is well, and each thing has a line."""
    done = headrace(world.env, "check")
    assert done.code == 0, done.out
    lines = done.out.splitlines()
    assert len(lines) == 7
    assert all(line.startswith("ok ") for line in lines)


def test_all_problems(fresh: dict[str, str], tmp_path: Path) -> None:
    """All problems are shown, not only the first, and nothing is made."""
    (tmp_path / "file").write_text("")
    env = {**fresh, "HEADRACE_TABLE__URI": str(tmp_path / "file" / "lancedb")}
    done = headrace(env, "check", "--json")
    assert done.code == 1
    found = states(done.json)
    assert found["source.topics"] == found["embeddings.topic"] == "problem"
    assert found["dead_letters.topic"] == found["table"] == "problem"
    assert found["kafka"] == found["model"] == "ok"
    assert not headrace(fresh, "status").out


def test_nothing_is_made(fresh: dict[str, str], tmp_path: Path) -> None:
    """A table that is not there yet is no problem, and check does not make it."""
    assert headrace(fresh, "topics", "create").code == 0
    done = headrace(fresh, "check")
    assert done.code == 0, done.out
    assert "not there yet" in done.out
    assert not (tmp_path / "lancedb").exists()


def test_another_flow(fresh: dict[str, str], tmp_path: Path) -> None:
    """Of `flows.recommend` its own topics and tables are looked at."""
    done = headrace(fresh, "check", "recommend", "--json")
    assert done.code == 1
    found = states(done.json)
    assert found["recommend.views_topic"] == found["recommend.users_topic"] == "problem"
    assert "source.topics" not in found
    assert headrace(fresh, "topics", "create").code == 0
    done = headrace(fresh, "check", "recommend", "--json")
    assert done.code == 0, done.out
    assert [item["name"] for item in done.json if item["name"].startswith("table")] == [
        "table products",
        "table users",
    ]
    assert {item["state"] for item in done.json} == {"ok"}
    assert not (tmp_path / "lancedb").exists()
    assert headrace(fresh, "check", "nothing").code == 2


def test_unfit_topics(fresh: dict[str, str], broker: Broker) -> None:
    """Topics with the wrong clean-up or too small a limit are warnings with the way out."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    configs = {
        "SOURCE__TOPICS": {},
        "EMBEDDINGS__TOPIC": {"cleanup.policy": "delete", "max.message.bytes": "1000"},
        "DEAD_LETTERS__TOPIC": {"cleanup.policy": "compact"},
    }
    for name, config in configs.items():
        new = NewTopic(fresh[f"HEADRACE_{name}"], 1, 1, config=config)
        admin.create_topics([new])[new.topic].result()
    done = headrace(fresh, "check", "--json")
    assert done.code == 0
    found = states(done.json)
    assert found["embeddings.topic"] == found["dead_letters.topic"] == "warning"
    assert "cleanup.policy=compact,max.message.bytes=1000000" in done.out
    assert "cleanup.policy=delete" in done.out


def test_other_model(world: World) -> None:
    """A table that holds another model's vectors is a problem."""
    done = headrace({**world.env, "HEADRACE_MODEL__MAX_TOKENS": "64"}, "check", "--json")
    assert done.code == 1
    assert states(done.json)["table"] == "problem"


def test_no_model_no_broker(fresh: dict[str, str]) -> None:
    """A model that is not to be had and a broker that is away are both told."""
    server = f"{HOST}:{free_port()}"
    env = {
        **fresh,
        "HEADRACE_MODEL__NAME": "/nowhere/model",
        "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": server,
        "HEADRACE_KAFKA__OUTAGE_S": "0.5",
    }
    done = headrace(env, "check", "--json")
    assert done.code == 1
    told = {item["name"]: item for item in done.json}
    assert told["model"]["state"] == told["kafka"]["state"] == "problem"
    assert "Connection refused" in told["kafka"]["message"]


def test_wrong_setting() -> None:
    """A wrong setting is a problem like others."""
    done = headrace({"HEADRACE_NO__SUCH": "1"}, "check")
    assert done.code == 1
    assert done.out.startswith("problem  settings: no")


def test_a_mapping(world: World) -> None:
    """What of a mapping can't be compiled is a problem; so is one that no record fits."""
    env = {**world.env, "HEADRACE_SOURCE__METADATA": '{"price": "/metadata/price"}'}
    wrong = headrace({**env, "HEADRACE_SOURCE__TEXT": "{title}"}, "check")
    assert wrong.code == 1
    assert wrong.out.startswith("problem  settings: source.text: 'title': is no JSON pointer")
    for text, state in (("/text", "warning"), ("/headline", "problem")):
        found = headrace({**env, "HEADRACE_SOURCE__TEXT": text}, "check", "--json").json
        told = {item["name"]: item for item in found}["records"]
        assert told["state"] == state, told
        assert told["message"].startswith("of the ")


def test_a_schema_registry(fresh: dict[str, str], registry: Registry) -> None:
    """It is reached, and what is missing in it is told; so is one that is away."""
    assert headrace(fresh, "topics", "create").code == 0
    env = {
        **fresh,
        "HEADRACE_REGISTRY__URL": registry.url,
        "HEADRACE_SOURCE__ENCODING": "registry",
        "HEADRACE_EMBEDDINGS__ENCODING": "registry",
    }
    done = headrace(env, "check")
    assert done.code == 0, done.out
    assert f"registry: AVRO, JSON, PROTOBUF at {registry.url}" in done.out
    assert "the flow will put it there" in done.out
    done = headrace({**env, "HEADRACE_EMBEDDINGS__REGISTER_SCHEMA": "false"}, "check")
    assert done.code == 1
    assert "register it, or set embeddings.register_schema to true" in done.out
    away = f"http://{HOST}:{free_port()}"
    done = headrace(
        {**env, "HEADRACE_REGISTRY__URL": away, "HEADRACE_KAFKA__OUTAGE_S": "2"}, "check"
    )
    assert done.code == 1
    assert f"registry: registry.url: {away}: asking for its types: no answer for 2 s" in done.out
