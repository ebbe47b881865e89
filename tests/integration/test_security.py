"""A real broker with TLS, client certificates, logins and rights, and all that can be wrong."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jwt
import psutil
import pytest

from flows.access import Topics as FlowTopics
from flows.access import kafka_of, max_message_bytes
from flows.settings import load
from harness.flow import Flow
from harness.process import ROOT
from harness.server import service
from headrace.errors import HeadraceError
from operators.records import Lane
from recovery.progress import Board
from recovery.watchdog import Watchdog
from sinks.messages import MessageEncoder
from sinks.topic import LaneWriter, Writing
from sources.lane import LaneReader
from telemetry.metrics import Metrics
from tests.cli.conftest import headrace, lines
from tests.integration.pipeline import Pipeline
from tests.samples import dead_letter, embedding, outcomes, until
from tests.secured import MACHINE, PASSWORD, Right, Secured, grant, revoke

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytestmark = pytest.mark.kafka

JWT_KEY = "marker-9c2e-a-key-that-is-long-enough"
START_S = 180.0
SEVERAL = [f"user{number}" for number in range(12)]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """The broker."""
    made = Secured(tmp_path_factory.mktemp("secured"), ["flow", *SEVERAL])
    made.broker.start(START_S)
    with made.broker:
        yield made


def documented(pipeline: Pipeline) -> list[Right]:
    """The rights that docs/operations.md says a flow needs, for this one's names."""
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = page.partition("## Least rights")[2].split("\n\n")[2]
    names = {
        "source.topics": pipeline.topics.source,
        "embeddings.topic": pipeline.topics.embeddings,
        "dead_letters.topic": pipeline.topics.dead_letters,
        "kafka.application_id": pipeline.name,
    }
    rights = []
    for row in table.splitlines()[2:]:
        _, resource, operation, _ = re.split(r" ?\| ?", row)
        for setting in re.findall(r"`([a-z_.]+)`", resource):
            name = names[setting]
            if resource.startswith("transactional ids that begin"):
                rights.append(Right(operation, "transactional id", f"{name}:", prefix=True))
            else:
                kind = "group" if resource.startswith("group ") else "topic"
                rights.append(Right(operation, kind, name))
    return rights


RIGHTS = 5
"""How many they are, each topic by itself."""


def pipeline_of(secured: Secured, folder: Path, listener: str, user: str = "") -> Pipeline:
    """A flow that comes in by a listener and has no rights yet; not started."""
    folder.mkdir()
    return Pipeline(secured.broker, folder, partitions=1, settings=secured.client(listener, user))


def lines_of(pipeline: Pipeline) -> list[str]:
    """What the flow has told for people."""
    return [line for line in pipeline.flow.log_text().splitlines() if line.startswith("headrace:")]


@contextmanager
def running(*pipelines: Pipeline) -> Iterator[None]:
    """Run flows side by side."""
    try:
        for pipeline in pipelines:
            pipeline.flow.start()
        yield
    finally:
        for pipeline in pipelines:
            pipeline.flow.terminate()


def test_the_least_rights_are_enough(secured: Secured, tmp_path: Path) -> None:
    """A flow runs over TLS, client certificates and logins, by the documented rights alone.

    The one with a login logs all that it can; its secret is in no log, and neither in what its
    processes were started with nor in the environment of the one that writes the table.
    """
    tls = pipeline_of(secured, tmp_path / "tls", "tls")
    mutual = pipeline_of(secured, tmp_path / "mutual", "mutual")
    scram = pipeline_of(secured, tmp_path / "scram", "scram", "flow")
    grant(secured.broker, MACHINE, documented(mutual))
    grant(secured.broker, "flow", documented(scram))
    settings = dict(scram.flow.settings)
    settings.pop("HEADRACE_KAFKA__CLIENT__SASL_PASSWORD_FILE")
    settings["HEADRACE_KAFKA__CLIENT__SASL_PASSWORD"] = PASSWORD
    settings["HEADRACE_KAFKA__CLIENT__DEBUG"] = "all"
    scram.flow = Flow(
        settings | {"HEADRACE_AUTH__JWT_KEY": JWT_KEY},
        log=scram.flow.log,
        recovery=scram.flow.recovery,
        flow="tests.integration.loud",
    )
    flows = (tls, mutual, scram)
    with running(*flows):
        for one in flows:
            one.put("a", "a text that is to be found")
            one.put_raw(None, b"a record without a key")
        for one in flows:
            one.settle(200)
            assert set(one.rows()) == {"a"}
            assert len(one.outputs()) == 2
        [writer] = scram.flow.writers
        started = [psutil.Process(pid) for pid in (*scram.flow.pids, writer)]
        assert not [one for one in started if holds_secret(" ".join(one.cmdline()))]
        environment = started[-1].environ()
        assert "PATH" in environment
        assert not [name for name in environment if name.startswith("HEADRACE_")]
    log = scram.flow.log_text()
    assert "sasl.password" in log  # it is as loud as it was told to be
    assert '"level": "debug"' in log
    assert not holds_secret(log)


def holds_secret(text: str) -> bool:
    """Whether a text has one of the marked secrets."""
    return PASSWORD in text or JWT_KEY in text


@pytest.fixture(scope="module")
def refused(
    secured: Secured, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[Right, list[int], list[str]]]:
    """For each documented right how a flow ended that lacks it alone: exit code and line."""
    folder = tmp_path_factory.mktemp("refused")
    flows = []
    for number, user in enumerate(SEVERAL[:RIGHTS]):
        one = pipeline_of(secured, folder / user, "scram", user)
        rights = documented(one)
        assert len(rights) == RIGHTS
        lacking = rights.pop(number)
        grant(secured.broker, user, rights)
        one.put("a", "a text")
        one.producer.flush(30)
        flows.append((lacking, one))
    with running(*(one for _, one in flows)):
        return [(right, one.flow.wait(200), lines_of(one)) for right, one in flows]


@pytest.mark.parametrize("number", range(RIGHTS))
def test_a_right_that_is_missing(
    refused: list[tuple[Right, list[int], list[str]]], number: int
) -> None:
    """A flow without one of the rights ends, in one line that names it."""
    right, codes, told = refused[number]
    assert codes == [1]
    [line] = told
    assert named(right) in line


def named(right: Right) -> str:
    """How an error names a missing right."""
    name = f"transactional ids {right.name}*" if right.prefix else f"{right.kind} {right.name}"
    return f"no right to {right.operation} on {name}: grant it to the user of kafka.client"


class Lives:
    """One lane's reader and writer, which a user runs who has a flow's rights."""

    def __init__(self, secured: Secured, folder: Path, user: str) -> None:
        self.secured, self.user = secured, user
        self.pipeline = pipeline_of(secured, folder / user, "scram", user)
        self.rights = documented(self.pipeline)
        grant(secured.broker, user, self.rights)
        settings = load(self.pipeline.environment, folder)
        topics = self.pipeline.topics
        self.kafka = kafka_of(settings)
        self.lane = Lane(topics.source, 0)
        self.writing = Writing(
            self.kafka,
            MessageEncoder(topics.embeddings, topics.dead_letters, "float32", "m", "f"),
            "lz4",
            max_message_bytes(settings, 8),
            Board(),
            Watchdog(),
            Metrics(),
            rights=FlowTopics(
                (("source.topics", topics.source),),
                (("embeddings.topic", topics.embeddings), ("d", topics.dead_letters)),
            ).rights,
        )

    def revoke(self, number: int) -> Right:
        """Take the right of that number away, but leave what only lets look."""
        right = self.rights[number]
        revoke(self.secured.broker, self.user, right)
        grant(self.secured.broker, self.user, [replace(right, operation="Describe")])
        return right

    def commit(self, writer: LaneWriter, first: int) -> None:
        """Commit an embedding and a dead letter."""
        rows = [embedding(f"{first}", "text"), dead_letter(f"{first + 1}")]
        writer._commit([outcomes(rows, first, lane=self.lane)])

    def commit_on(self, writer: LaneWriter) -> None:
        """Commit more; for a while, since the broker's parts hear of rights one by one."""
        for first in range(2, 2000, 2):
            self.commit(writer, first)


@pytest.mark.parametrize("number", range(1, RIGHTS))
def test_a_right_to_write_that_is_taken_away(secured: Secured, tmp_path: Path, number: int) -> None:
    """A transaction that lacks a right ends by its name, and is not tried for ever."""
    lives = Lives(secured, tmp_path, SEVERAL[RIGHTS + number])
    writer = LaneWriter(lives.writing, lives.lane, 0.0)
    lives.commit(writer, 0)
    right = lives.revoke(number)
    with pytest.raises(HeadraceError) as told:
        lives.commit_on(writer)
    assert named(right) in str(told.value)
    writer.close()


def test_the_right_to_read_that_is_taken_away(secured: Secured, tmp_path: Path) -> None:
    """A lane that may no longer be read ends by the right's name."""
    lives = Lives(secured, tmp_path, SEVERAL[RIGHTS])
    reader = LaneReader(lives.kafka, lives.lane)
    reader.start(0)
    lives.pipeline.put("a", "a text")
    lives.pipeline.producer.flush(30)
    until(lambda: reader.read(10) is not None, 30)
    right = lives.revoke(0)
    with pytest.raises(HeadraceError) as told:
        until(lambda: reader.read(10) is not None and False, 30)
    assert named(right) in str(told.value)
    reader.close()


@pytest.fixture
def place(secured: Secured, tmp_path: Path) -> Pipeline:
    """Topics, and the settings of a user without any right."""
    return pipeline_of(secured, tmp_path / "place", "scram", SEVERAL[-1])


def test_the_commands(secured: Secured, place: Pipeline, tmp_path: Path) -> None:
    """Each command works by the rights that the docs name, and without them names one."""
    topics, env, user = place.topics, place.environment, SEVERAL[-1]
    file = tmp_path / "documents.ndjson"
    file.write_bytes(lines({"id": "a", "text": "a text"}))
    read, write = Right("Read", "topic", topics.source), Right("Write", "topic", topics.source)
    dead, group = Right("Read", "topic", topics.dead_letters), Right("Read", "group", place.name)
    outputs = [topics.embeddings, topics.dead_letters]
    looks = [Right("Describe", "topic", topic) for topic in outputs]
    cases: list[tuple[list[str], list[Right], str]] = [
        (["load", str(file)], [write], "Describe on topic"),
        (["status", "--json"], [read, group, *looks], "Describe on topic"),
        (["dead-letters", "list", "--json"], [dead], "Describe on topic"),
        (["dead-letters", "replay", "--all", "--json"], [dead, write], "Describe on topic"),
    ]
    for arguments, rights, missing in cases:
        before = headrace(env, *arguments)
        assert before.code == 1
        assert f"no right to {missing} " in before.err
        assert before.err.count("\n") == 1
        grant(secured.broker, user, rights)
        after = headrace(env, *arguments)
        assert (after.code, after.err) == (0, "")
        for right in rights:
            revoke(secured.broker, user, right)


def test_a_record_that_may_not_be_sent(secured: Secured, place: Pipeline, tmp_path: Path) -> None:
    """`load` by a user who may look at the topic and not write to it names the right."""
    grant(secured.broker, SEVERAL[-1], [Right("Describe", "topic", place.topics.source)])
    file = tmp_path / "documents.ndjson"
    file.write_bytes(lines({"id": "a", "text": "a text"}))
    told = headrace(place.environment, "load", str(file))
    assert told.code == 1
    assert named(Right("Write", "topic", place.topics.source)) in told.err


def test_topics_are_made(secured: Secured, place: Pipeline) -> None:
    """`topics create` needs Create and Describe on each topic, and names what it lacks."""
    prefix = f"{place.name}-new"
    names = {
        "SOURCE__TOPICS": f"{prefix}.in",
        "EMBEDDINGS__TOPIC": f"{prefix}.out",
        "DEAD_LETTERS__TOPIC": f"{prefix}.dead",
        "RECOMMEND__VIEWS_TOPIC": f"{prefix}.views",
        "RECOMMEND__INVENTORY_TOPIC": f"{prefix}.stock",
        "RECOMMEND__EMBEDDINGS_TOPIC": f"{prefix}.products",
        "RECOMMEND__USERS_TOPIC": f"{prefix}.users",
    }
    env = place.environment | {f"HEADRACE_{name}": topic for name, topic in names.items()}
    grant(secured.broker, SEVERAL[-1], [Right("Describe", "topic", prefix, prefix=True)])
    without = headrace(env, "topics", "create")
    assert without.code == 1
    assert f"no right to Create on topic {prefix}." in without.err
    grant(secured.broker, SEVERAL[-1], [Right("Create", "topic", prefix, prefix=True)])
    made = headrace(env, "topics", "create", "--json")
    assert made.code == 0, made.err
    assert {topic["name"] for topic in made.json} == set(names.values())


def test_check_names_the_rights(secured: Secured, place: Pipeline) -> None:
    """`check` names each right to a topic that is missing; settings it can't see are a warning."""
    topics, broker, user = place.topics, secured.broker, SEVERAL[-1]
    grant(broker, user, [Right("Describe", "topic", topics.embeddings)])
    told = checked(place)
    assert told[f"source.topics {topics.source}"]["state"] == "problem"
    lacking = named(Right("Write", "topic", topics.embeddings))
    assert lacking in told[f"embeddings.topic {topics.embeddings}"]["message"]
    grant(broker, user, documented(place))
    told = checked(place)
    assert told["kafka"]["state"] == "ok"
    assert told[f"source.topics {topics.source}"]["state"] == "warning"
    seen = named(Right("DescribeConfigs", "topic", topics.source))
    assert seen in told[f"source.topics {topics.source}"]["message"]
    every = [topics.source, topics.embeddings, topics.dead_letters]
    grant(broker, user, [Right("DescribeConfigs", "topic", topic) for topic in every])
    assert checked(place)[f"source.topics {topics.source}"]["state"] == "ok"


def checked(place: Pipeline) -> dict[str, Any]:
    """What `check` says of each thing; the model is none, so that nothing is loaded."""
    env = place.environment | {"HEADRACE_MODEL__NAME": str(place.folder / "no-model")}
    return {item["name"]: item for item in headrace(env, "check", "--json").json}


def test_a_write_over_http(secured: Secured, place: Pipeline, tmp_path: Path) -> None:
    """The server writes by a login that has one right, and refuses by name when that is gone.

    Neither its key nor the broker's password is in its log.
    """
    write = Right("Write", "topic", place.topics.source)
    user = SEVERAL[-1]
    grant(secured.broker, user, [replace(write, operation="Describe")])
    env = place.environment | {
        "HEADRACE_AUTH__JWT_KEY": JWT_KEY,
        "HEADRACE_KAFKA__CLIENT__DEBUG": "all",
        "HEADRACE_SERVE__DELIVERY_TIMEOUT_S": "20",
    }
    claims = {"sub": "me", "scope": "write", "aud": "headrace", "exp": 4_000_000_000}
    token = jwt.encode(claims, JWT_KEY, algorithm="HS256")
    with service(tmp_path, env, "ingest") as client:

        def put(bearer: str) -> tuple[int, dict[str, Any]]:
            sent = {"Authorization": f"Bearer {bearer}"}
            answer = client.put("/v1/documents/a", json={"text": "a text"}, headers=sent)
            return answer.status_code, json.loads(answer.text)

        status, problem = put(token)
        assert (status, problem["code"]) == (503, "no_right")  # before it has any right to write
        grant(secured.broker, user, [write])
        until(lambda: put(token)[0] == 202, 30)
        assert put(f"{token}x")[0] == 401
        revoke(secured.broker, user, write)
        until(lambda: put(token)[0] != 202, 30)
        status, problem = put(token)
        assert (status, problem["code"]) == (503, "no_right")
    log = (tmp_path / "server.log").read_text()
    assert named(write) in log
    assert not holds_secret(log)
    assert token not in log


@pytest.mark.parametrize(
    ("listener", "wrong", "expected"),
    [
        ("scram", "password", "kafka.client: sasl.username flow: the broker refuses the login"),
        ("tls", "authority", "unable to get local issuer certificate; see ssl.ca.location"),
        ("expired", "", "is not trusted: certificate has expired; mend it there"),
        ("other", "", "certificate is not valid for '127.0.0.1'; mend it there"),
        ("mutual", "certificate", "ssl.certificate.location: the broker refuses who comes"),
    ],
)
def test_who_is_not_let_in(
    secured: Secured, tmp_path: Path, listener: str, wrong: str, expected: str
) -> None:
    """A login or a certificate that is not taken is told as that, and not as a broker away."""
    env = secured.client(listener, "flow", "not-the-password")
    client = "HEADRACE_KAFKA__CLIENT__"
    if wrong == "authority":
        env[f"{client}SSL_CA_LOCATION"] = str(secured.foreign)
    if wrong == "certificate":
        del env[f"{client}SSL_CERTIFICATE_LOCATION"], env[f"{client}SSL_KEY_LOCATION"]
    told = kafka_of(load(env, tmp_path)).diagnosis()
    assert told.startswith("kafka.client: ")
    assert expected in told
    assert "\n" not in told
    assert "not-the-password" not in told


def test_a_flow_that_is_not_let_in(secured: Secured, tmp_path: Path) -> None:
    """A flow with a wrong password ends when the broker may be away no longer, and says why."""
    one = pipeline_of(secured, tmp_path / "flow", "scram", "flow")
    one.flow.settings |= secured.client("scram", "flow", "not-the-password")
    one.flow.settings["HEADRACE_KAFKA__OUTAGE_S"] = "4"
    with running(one):
        assert one.flow.wait(120) == [1]
    [line] = lines_of(one)
    assert "no answer for 4 s: kafka.client: " in line
    assert "sasl.username flow: the broker refuses the login" in line
    assert "not-the-password" not in one.flow.log_text()
