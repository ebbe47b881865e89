"""`headrace init` on topics that are unlike: its settings serve the flow as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lancedb
import pytest

from harness.flow import Flow
from tests.brokers import send, topic_on
from tests.cli.conftest import headrace, until
from tests.integration.unlike import topics

if TYPE_CHECKING:
    from pathlib import Path

    from harness.broker import Broker
    from tests.integration.unlike import Unlike

pytestmark = pytest.mark.kafka


FLOWS = ("rows", "posts", "events", "packages", "tickets")
"""Those that a flow is started for; that the others are read as well needs none to be seen."""


@pytest.mark.parametrize(
    "topic", [one for one in topics() if one.name in FLOWS], ids=lambda topic: topic.name
)
def test_settings_work_unchanged(topic: Unlike, broker: Broker, tmp_path: Path) -> None:
    """What init writes, unasked and unchanged, makes a row of each document and of no other."""
    name = topic_on(broker, partitions=2)
    send(broker, name, [(key, value, []) for key, value in topic.records], partition=-1)
    servers = {"HEADRACE_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers}
    file = tmp_path / "headrace.toml"
    done = headrace(servers, "init", "--topic", name, "--output", str(file))
    assert done.code == 0, done.err
    env = {
        "HEADRACE_CONFIG": str(file),
        "HEADRACE_TABLE__URI": str(tmp_path / "lancedb"),
        "HEADRACE_RECOVERY__SUSPECTS": str(tmp_path / "suspects"),
        "HEADRACE_METRICS__ADDRESS": "",
    }
    assert headrace(env, "topics", "create").code == 0
    with Flow(env, log=tmp_path / "flow.log") as flow:
        until(lambda: has_all(env), flow)
    table = lancedb.connect(str(tmp_path / "lancedb")).open_table(name)
    rows = table.search().where("NOT deleted AND id IS NOT NULL").to_list()
    assert {row["id"] for row in rows} == topic.ids
    identity, word = topic.sample
    assert next(word in row["text"] for row in rows if row["id"] == identity)


def has_all(env: dict[str, str]) -> bool:
    """Whether topic and table have all that was sent."""
    told = headrace(env, "status", "--json").json
    done = told["lag"] == 0 and told["partitions"]
    return bool(done) and all(one["table"] == one["committed"] for one in told["partitions"])
