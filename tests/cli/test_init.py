from __future__ import annotations

import json
import os
import pty
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from flows.settings import load
from harness.process import HOST, ROOT, bare_environment, free_port
from tests.brokers import send, topic_on
from tests.cli.conftest import headrace

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from harness.broker import Broker
    from tests.brokers import Record

pytestmark = pytest.mark.kafka

PRODUCTS = [
    {"sku": f"p{number}", "title": f"A chair of {wood}", "price": number + 0.5}
    for number, wood in enumerate(["oak", "beech", "pine", "ash", "elm"])
]


@pytest.fixture
def servers(broker: Broker) -> dict[str, str]:
    """Where the broker is, and nothing else."""
    return {"HEADRACE_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers}


@pytest.fixture
def products(broker: Broker) -> str:
    """A topic of products."""
    name = topic_on(broker, partitions=3)
    records: list[Record] = [(None, json.dumps(one).encode(), []) for one in PRODUCTS]
    send(broker, name, records, partition=-1)
    return name


def test_writes_settings(servers: dict[str, str], products: str, tmp_path: Path) -> None:
    """The file has the guesses, says how well they fit, and is one that a flow loads."""
    file = tmp_path / "some.toml"
    done = headrace(servers, "init", "--topic", products, "--output", str(file))
    assert done.code == 0, done.err
    assert "of the 5 newest records 5 fit" in done.out
    assert done.out.count("A chair of") == 3
    assert "5 newest records 5 fit" in file.read_text(encoding="utf-8")
    settings = load({"HEADRACE_CONFIG": str(file)}, tmp_path)
    assert settings.kafka.bootstrap_servers == servers["HEADRACE_KAFKA__BOOTSTRAP_SERVERS"]
    assert settings.source.topics == (products,)
    assert settings.source.id == "/sku"
    assert settings.source.text == "/title"
    assert settings.columns == {"price": "float64"}
    assert settings.table.name == products


def test_replaces_nothing(servers: dict[str, str], products: str, tmp_path: Path) -> None:
    """A file that is there stays, unless it is to be replaced."""
    file = tmp_path / "headrace.toml"
    file.write_text("# mine\n")
    given = ("init", "--topic", products, "--output", str(file))
    done = headrace(servers, *given)
    assert done.code == 2
    assert "is there already; --force" in done.err
    assert headrace(servers, *given, "--dry-run").code == 0
    assert file.read_text() == "# mine\n"
    assert headrace(servers, *given, "--force").code == 0
    assert "[source]" in file.read_text()
    done = headrace(servers, *given[:-1], str(tmp_path / "no" / "where.toml"))
    assert done.code == 1
    assert "No such file or directory" in done.err


def test_json_and_options(servers: dict[str, str], products: str, tmp_path: Path) -> None:
    """What options say is what the settings have, and all is told as JSON too."""
    file = tmp_path / "headrace.toml"
    done = headrace(
        servers,
        *("init", "--topic", products, "--output", str(file), "--dry-run", "--json"),
        *("--text", "Buy {/title}", "--metadata", "cost=/price:float32", "--filter", "price > `2`"),
        *("--id", "/sku", "--markup", "markdown", "--timestamp", "none", "--delete-when", "none"),
    )
    assert done.code == 0, done.err
    told = done.json
    assert told["written"] is None
    assert not file.exists()
    source = told["settings"]["source"]
    assert source["text"] == "Buy {/title}"
    assert source["metadata"] == {"cost": {"at": "/price", "type": "float32"}}
    assert told["fit"] == {"records": 5, "documents": 3, "passed": 2, "fault": ""}
    assert {one["text"] for one in told["documents"]} == {
        "Buy A chair of pine",
        "Buy A chair of ash",
        "Buy A chair of elm",
    }


def test_own_form(servers: dict[str, str], broker: Broker) -> None:
    """A topic of Headrace's own form needs no mapping; its metadata becomes columns."""
    name = topic_on(broker)
    send(broker, name, [(b"a", b'{"text": "A chair", "metadata": {"price": 2}}', [])])
    told = headrace(servers, "init", "--topic", name, "--dry-run", "--json").json
    assert told["form"] == "own"
    assert told["settings"]["source"] == {"topics": [name]}
    assert told["settings"]["table"]["columns"] == {"price": "float64"}


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], "holds no records yet"),
        ([(b"k", b"plain text", [])], "no JSON objects, such as the last: bad_json"),
        ([(b"k", None, [])], "are deletions, without a value"),
        ([(b"k", struct.pack(">bI", 0, 7) + b"\x02a", [])], "HEADRACE_SOURCE__ENCODING=registry"),
        ([(b"k", b'{"n": 1}', [])], "say where it is, such as --text /title; there are /n"),
        ([(None, b'{"title": "A chair of oak"}', [])], "such as --id /sku; there are /title"),
    ],
)
def test_nothing_to_propose(
    servers: dict[str, str],
    broker: Broker,
    records: list[Record],
    said: str,
) -> None:
    """A topic of which nothing can be made is told in one line that says what to do."""
    name = topic_on(broker)
    send(broker, name, records)
    done = headrace(servers, "init", "--topic", name, "--dry-run")
    assert done.code in {1, 2}
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert not done.out


def test_what_does_not_fit(servers: dict[str, str], products: str) -> None:
    """Settings that no record fits are not written; those that can't be right are named."""
    given = ("init", "--topic", products, "--dry-run")
    done = headrace(servers, *given, "--text", "/nothing")
    assert done.code == 1
    assert "none of the 5 newest records fits the settings" in done.err
    done = headrace(servers, *given, "--text", "title")
    assert done.code == 2
    assert "source.text: 'title': is no JSON pointer" in done.err
    done = headrace(servers, *given, "--markup", "rtf")
    assert done.code == 2
    assert done.err.startswith("headrace: source.markup: 'rtf'")


def test_no_topic_no_broker(servers: dict[str, str]) -> None:
    """A topic that is not there, and a broker that is not, are told."""
    done = headrace(servers, "init", "--topic", "nowhere", "--dry-run")
    assert done.code == 1
    assert "--topic: nowhere: there is no such topic" in done.err
    away = {
        "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": f"{HOST}:{free_port()}",
        "HEADRACE_KAFKA__OUTAGE_S": "0.5",
    }
    done = headrace(away, "init", "--topic", "nowhere", "--dry-run")
    assert done.code == 1
    assert "Connection refused" in done.err


def test_asks_on_a_terminal(servers: dict[str, str], products: str, tmp_path: Path) -> None:
    """On a terminal each guess is asked about: Enter takes it, an answer takes its place."""
    answers = ["", "{/title}, {/sku}", "", "cost=/price:float32", "", "", ""]
    code, told = on_terminal(servers, tmp_path, answers, "init", "--topic", products)
    assert code == 0, told
    assert "Enter takes the guess" in told
    assert "[/sku]" in told
    settings = load({}, tmp_path)
    assert settings.source.id == "/sku"
    assert settings.source.text == "{/title}, {/sku}"
    assert settings.columns == {"cost": "float32"}
    code, told = on_terminal(servers, tmp_path, [], "init", "--topic", products, "--force", "--yes")
    assert code == 0, told
    assert "Enter takes the guess" not in told


def on_terminal(
    env: Mapping[str, str], folder: Path, answers: list[str], *arguments: str
) -> tuple[int, str]:
    """Run a command on a terminal of its own: how it ended, and what stood there."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from cli.main import run; raise SystemExit(run())"]
    process = subprocess.Popen(
        [*command, *arguments],
        cwd=folder,
        env={**bare_environment(), **env, "PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
    told = b""
    try:
        while part := os.read(ours, 65_536):
            told += part
    except OSError:  # as Linux tells that the other end is closed
        pass
    finally:
        os.close(ours)
    return process.wait(30), told.decode()
