from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cli.broker import Record, connect, records
from cli.dead_letters import Choice, Letter, _letter, _returned, _source, _span
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
    died_at = headrace(world.env, "dead-letters", "show", "0:0", "--json").json["source"]
    assert sent[0].headers == (
        ("event_id", b"e1"),
        ("headrace-origin", died_at.encode()),
        ("headrace-origin-error", b"bad_json"),
        ("headrace-replayed", b"1"),
    )


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


def test_show(world: World) -> None:
    """One dead letter is shown with its headers and its value, cut where that is asked for."""
    found = headrace(world.env, "dead-letters", "show", "0:1", "--json").json
    assert (found["offset"], found["code"]) == ("0:1", "no_text")
    assert found["source"].startswith("world.documents/0/")
    assert found["key"] == {"text": "empty", "bytes": 5, "cut": False}
    assert found["headers"] == [
        {"name": "event_id", "value": {"text": "e1", "bytes": 2, "cut": False}}
    ]
    assert found["value"] == {"text": '{"text": " "}', "bytes": 13, "cut": False}
    assert (found["origin"], found["replayed"]) == (None, 0)
    cut = headrace(world.env, "dead-letters", "show", "0:1", "--bytes", "3", "--json").json
    assert cut["value"] == {"text": '{"t', "bytes": 13, "cut": True}
    shown = headrace(world.env, "dead-letters", "show", "0:1").out
    assert "code: no_text\n" in shown
    assert "header event_id: e1\n" in shown
    assert shown.endswith('value, 13 bytes:\n{"text": " "}\n')
    assert headrace(world.env, "dead-letters", "show", "0:2").out.endswith("value: none\n")


@pytest.mark.parametrize("place", ["0:99", "7:0"])
def test_show_nothing(world: World, place: str) -> None:
    """A place that holds no dead letter is an error that names it."""
    done = headrace(world.env, "dead-letters", "show", place)
    assert (done.code, done.out) == (1, "")
    assert (
        done.err
        == f"headrace: world.dead/{place.replace(':', '/')}: there is no such dead letter\n"
    )


def test_where_they_died(world: World) -> None:
    """A source topic and its partition narrow the list; those of another are not shown."""

    def keys(*options: str) -> list[str]:
        found = headrace(world.env, "dead-letters", "list", "--json", *options).json
        return [item["key"] for item in found]

    every = [key.decode() for key in BAD]
    assert keys("--source", "world.documents") == keys("--partition", "0") == every
    assert keys("--source", "world.documents/0", "--code", "no_text") == ["empty"]
    assert keys("--source", "world.documents/1") == keys("--partition", "1") == []
    assert keys("--source", "world") == []


def test_when_they_died(fresh: dict[str, str], broker: Broker) -> None:
    """Only those within the span are listed, also where records do not stand in time's order."""
    headrace(fresh, "topics", "create")
    producer = KafkaConfig(broker.bootstrap_servers, "test").producer()
    start = datetime(2025, 3, 1, 12, tzinfo=UTC)
    for minute in (0, 10, 9, 20, 60, 180):
        when = int((start + timedelta(minutes=minute)).timestamp() * 1000)
        topic = fresh["HEADRACE_DEAD_LETTERS__TOPIC"]
        producer.produce(topic, b"x", str(minute), timestamp=when)
        producer.flush()

    def keys(*options: str) -> list[str]:
        done = headrace(fresh, "dead-letters", "list", "--json", *options)
        assert done.code == 0, done.err
        return [item["key"] for item in done.json]

    assert keys("--since", "2025-03-01T12:10") == ["10", "20", "60", "180"]
    assert keys("--until", "2025-03-01T12:10:00Z") == ["0", "9"]
    assert keys("--since", "2025-03-01T12:05", "--until", "2025-03-01T14:01+01:00") == [
        *("10", "9", "20", "60")
    ]
    assert keys("--since", "2h") == keys("--until", "2025-03-01") == []
    assert len(keys("--until", "1s")) == 6


def test_what_a_span_leaves_is_not_read(fresh: dict[str, str], broker: Broker) -> None:
    """The offsets to read are found by time: what is before the span, and long after it, is not."""
    headrace(fresh, "topics", "create")
    producer = KafkaConfig(broker.bootstrap_servers, "test").producer()
    lane = Lane(fresh["HEADRACE_DEAD_LETTERS__TOPIC"], 0)
    for hour in range(5):
        producer.produce(
            lane.topic, b"x", str(hour), timestamp=1_700_000_000_000 + hour * 3_600_000
        )
        producer.flush()
    # Of an hour that is in the span, by a clock that is hours late: beyond what is looked at.
    producer.produce(lane.topic, b"x", "late", timestamp=1_700_000_000_000 + 3_600_000)
    producer.flush()
    span = ("--since", "2023-11-14T23:00Z", "--until", "2023-11-14T23:20Z")
    found = headrace(fresh, "dead-letters", "list", "--json", *span).json
    assert [item["key"] for item in found] == ["1"]
    kafka = connect(load(fresh, Path("/nowhere")))
    assert _span(kafka, lane, Choice(since=1_700_003_600_000, until=1_700_003_600_001)) == (1, 2)
    assert _span(kafka, lane, Choice(since=1_800_000_000_000)) == (6, None)


def test_bytes_that_are_no_text(fresh: dict[str, str], broker: Broker) -> None:
    """What is not UTF-8 is shown in hex, so that nothing of it is lost."""
    headrace(fresh, "topics", "create")
    producer = KafkaConfig(broker.bootstrap_servers, "test").producer()
    topic = fresh["HEADRACE_DEAD_LETTERS__TOPIC"]
    producer.produce(topic, b"\xff\x00a", "k", headers=[("h", b"\xfe"), ("none", None)])
    producer.flush()
    found = headrace(fresh, "dead-letters", "show", "0:0", "--json").json
    assert found["value"] == {"hex": "ff 00 61", "bytes": 3, "cut": False}
    assert [held["value"] and held["value"]["hex"] for held in found["headers"]] == ["fe", None]
    assert (
        "value, 3 bytes in hex:\nff 00 61\n" in headrace(fresh, "dead-letters", "show", "0:0").out
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["list", "--source", "/1"], "--source: '/1': must be TOPIC or TOPIC/PARTITION"),
        (["list", "--source", "a/b"], "--source: 'a/b': must be"),
        (["list", "--source", "a/1", "--partition", "2"], "--partition 2 says another one"),
        (["list", "--since", "yesterday"], "--since: 'yesterday': must be a time such as"),
        (["list", "--until", "999999999w"], "--until: '999999999w': must be"),
        (["show", "12"], "PLACE: '12': must be PARTITION:OFFSET"),
        (["replay"], "say which"),
        (["replay", "--all", "--partition", "0"], "say which"),
    ],
)
def test_wrong_usage(options: list[str], told: str) -> None:
    """A wrong option is told by its name before the broker is asked, and exits with 2."""
    done = headrace({}, "dead-letters", *options)
    assert done.code == 2
    assert told in done.err


def test_headers_of_a_second_replay() -> None:
    """The count rises with each replay, the first source stays; of two sources ours counts."""
    headers = (
        ("headrace-source", b"theirs"),
        ("headrace-replayed", b"1"),
        ("headrace-origin", b"a/b/1/0"),
        ("headrace-origin-error", b"poison"),
        ("headrace-error", b"no_text"),
        ("headrace-source", b"a/b/1/2"),
    )
    record = Record(Lane("dead", 0), 5, 0, b"k", b"v", headers)
    letter = _letter(record)
    assert _returned(record, letter) == (
        ("headrace-origin", b"a/b/1/0"),
        ("headrace-origin-error", b"poison"),
        ("headrace-replayed", b"2"),
    )
    assert letter.source == "a/b/1/2"
    assert _source("a/b/1/2") == (Lane("a/b", 1), 2)
    with pytest.raises(CommandError):
        _source("nonsense")


def test_an_origin_that_a_producer_made_up() -> None:
    """A record that was never sent back has no origin, whatever its headers say."""
    record = Record(Lane("dead", 0), 5, 0, b"k", b"v", (("headrace-origin", b"made/up/1"),))
    letter = Letter(record, "bad_json", "", "a/1/2")
    assert _returned(record, letter)[0] == ("headrace-origin", b"a/1/2")
