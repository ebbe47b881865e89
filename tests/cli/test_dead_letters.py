from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cli.broker import Record, connect, records
from cli.dead_letters import _letter, _returned, _source
from cli.errors import CommandError
from clients.kafka import KafkaConfig
from flows.settings import load
from operators.records import Lane
from tests.cli.conftest import BAD, headrace

if TYPE_CHECKING:
    from harness.broker import Broker
    from tests.cli.conftest import World

pytestmark = pytest.mark.kafka

CODES = ["bad_json", "no_text", "too_large"]


def source(env: dict[str, str]) -> list[Record]:
    """The records of the source partition that the bad ones were sent to."""
    settings = load(env, Path("/nowhere"))
    return list(records(connect(settings), Lane(settings.source.topics[0], 0)))


def test_list(world: World) -> None:
    """Each dead letter is shown with its place, code, source, key and value."""
    found = headrace(world.env, "dead-letters", "list", "--json").json
    assert [item["code"] for item in found] == CODES
    assert [item["key"] for item in found] == [key.decode() for key in BAD]
    first = found[0]
    assert first["offset"] == "0:0"
    assert first["value"] == "nope"
    assert first["source"].startswith("world.documents/0/")
    assert found[2]["value"] is None
    shown = headrace(world.env, "dead-letters", "list").out
    assert "3 of 3 dead letters" in shown


def test_list_some(world: World) -> None:
    """A code narrows the list, and -n keeps the newest."""
    [only] = headrace(world.env, "dead-letters", "list", "--code", "no_text", "--json").json
    assert only["key"] == "empty"
    [newest] = headrace(world.env, "dead-letters", "list", "-n", "1", "--json").json
    assert newest["code"] == "too_large"
    assert "1 of 3" in headrace(world.env, "dead-letters", "list", "-n", "1").out


def test_dry_run(world: World) -> None:
    """A dry run sends nothing, and says what can't be sent."""
    before = len(source(world.env))
    done = headrace(world.env, "dead-letters", "replay", "--all", "--dry-run", "--json")
    assert done.code == 1
    assert (done.json["replayed"], done.json["failed"]) == (2, 1)
    assert "source.max_record_bytes" in done.json["skipped"]["0:2"]
    assert len(source(world.env)) == before


def test_replay(world: World) -> None:
    """Chosen ones go back to their partition as they were, with a count; the others stay."""
    before = len(source(world.env))
    done = headrace(world.env, "dead-letters", "replay", "--offset", "0:0", "--offset", "0:1")
    assert done.code == 0, done.err
    assert "2 sent back, 0 skipped" in done.out
    sent = source(world.env)[before:]
    assert [(r.key, r.value) for r in sent] == list(BAD.items())[:2]
    assert sent[0].headers == (("event_id", b"e1"), ("headrace-replayed", b"1"))


def test_replay_large(world: World) -> None:
    """One that was too large is read again from its source, once the settings allow it."""
    before = len(source(world.env))
    env = {**world.env, "HEADRACE_SOURCE__MAX_RECORD_BYTES": "900000"}
    done = headrace(env, "dead-letters", "replay", "--code", "too_large", "--json")
    assert (done.code, done.json["replayed"]) == (0, 1)
    [sent] = source(world.env)[before:]
    assert sent.value == BAD[b"huge"]


def test_no_such_place(world: World) -> None:
    """A place that holds no dead letter is told, and exits with 1."""
    done = headrace(world.env, "dead-letters", "replay", "--offset", "0:99")
    assert done.code == 1
    assert "skipped 0:99: there is no such dead letter" in done.out


def test_open_and_aborted_transactions(fresh: dict[str, str], broker: Broker) -> None:
    """Reading ends before a transaction that is still open, and passes over an aborted one."""
    headrace(fresh, "topics", "create")
    topic = fresh["HEADRACE_DEAD_LETTERS__TOPIC"]
    kafka = KafkaConfig(broker.bootstrap_servers, topic)
    producer = kafka.transactional_producer("test")
    producer.init_transactions()
    for key, end in (("1", producer.commit_transaction), ("2", producer.abort_transaction)):
        producer.begin_transaction()
        producer.produce(topic, b"x", key)
        producer.flush()
        end()
    assert [item["key"] for item in headrace(fresh, "dead-letters", "list", "--json").json] == ["1"]
    producer.begin_transaction()
    producer.produce(topic, b"x", "3")
    producer.flush()
    assert [item["key"] for item in headrace(fresh, "dead-letters", "list", "--json").json] == ["1"]
    producer.abort_transaction()


def test_foreign_records(fresh: dict[str, str], broker: Broker) -> None:
    """A record in the topic that Headrace did not write is shown, and skipped by a replay."""
    headrace(fresh, "topics", "create")
    producer = KafkaConfig(broker.bootstrap_servers, "test").producer()
    producer.produce(fresh["HEADRACE_DEAD_LETTERS__TOPIC"], b"\xff\x1b[2J", None)
    producer.flush()
    shown = headrace(fresh, "dead-letters", "list", "--json").json
    assert (shown[0]["code"], shown[0]["key"], shown[0]["value_bytes"]) == ("", None, 5)
    done = headrace(fresh, "dead-letters", "replay", "--all")
    assert done.code == 1
    assert "headrace-source" in done.out


def test_headers_of_a_second_replay() -> None:
    """The count rises with each replay, and of two sources the last, which is ours, counts."""
    headers = (
        ("headrace-source", b"theirs"),
        ("headrace-replayed", b"1"),
        ("headrace-error", b"no_text"),
        ("headrace-source", b"a/b/1/2"),
    )
    record = Record(Lane("dead", 0), 5, 0, b"k", b"v", headers)
    assert _returned(record) == (("headrace-replayed", b"2"),)
    assert _letter(record).source == "a/b/1/2"
    assert _source("a/b/1/2") == (Lane("a/b", 1), 2)
    with pytest.raises(CommandError):
        _source("nonsense")
