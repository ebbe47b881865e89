from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from harness.process import HOST, ROOT, free_port
from tests.cli.conftest import headrace, lines

if TYPE_CHECKING:
    from pathlib import Path

    from harness.broker import Broker

HEAVY = ("confluent_kafka", "lance", "lancedb", "numpy", "onnxruntime", "pydantic", "structlog")


def test_help_says_what_is_taken_unless_given() -> None:
    """What stands in brackets is text, and no mark-up that would be left out."""
    told = " ".join(headrace({"COLUMNS": "200"}, "serve", "--help").out.split())
    assert "ingest or search. [default: serve.parts]" in told
    assert "Which pipeline of the settings file. [default: setting pipeline]" in told


def test_help_is_quick() -> None:
    """Help imports nothing that a command needs, which takes a second or more."""
    code = (
        "import sys; from cli.main import run; assert run(['--help']) == 0; "
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert done.stderr.decode().strip() == "[]"
    assert "dead-letters" in done.stdout.decode()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["topics", "create", "--partitions", "0"], "--partitions"),
        (["load"], "FILE"),
        (["load", "/nowhere/x.jsonl"], "/nowhere/x.jsonl: No such file"),
        (["search", " "], "WORDS"),
        (["dead-letters", "list", "--code", "nope"], "--code: nope"),
        (["dead-letters", "replay"], "--all"),
        (["dead-letters", "replay", "--all", "--code", "no_text"], "--all alone"),
        (["dead-letters", "replay", "--offset", "3"], "PARTITION:OFFSET"),
        (["status", "--recovery", "/nowhere"], "--recovery: /nowhere"),
    ],
)
def test_wrong_usage(arguments: list[str], told: str) -> None:
    """Wrong usage exits with 2 and one line on standard error that names the thing."""
    done = headrace({}, *arguments)
    assert done.code == 2
    assert done.out == ""
    [line] = done.err.splitlines()
    assert line.startswith("headrace: ")
    assert told in line


def test_wrong_setting() -> None:
    """A wrong setting exits with 2 and is named."""
    done = headrace({"HEADRACE_BATCH__ROWS": "0"}, "status")
    assert done.code == 2
    assert "batch.rows: '0'" in done.err
    assert done.err.count("\n") == 1


def test_wrong_client_setting() -> None:
    """A setting that librdkafka refuses is told like any other, not as a traceback."""
    done = headrace({"HEADRACE_KAFKA__CLIENT__NO_SUCH": "1"}, "status")
    assert done.code == 2
    assert "kafka.client" in done.err
    assert done.err.count("\n") == 1


def test_broker_away() -> None:
    """A broker that is away is named in one line, with exit code 1."""
    server = f"{HOST}:{free_port()}"
    away = {"HEADRACE_KAFKA__BOOTSTRAP_SERVERS": server, "HEADRACE_KAFKA__OUTAGE_S": "0.5"}
    done = headrace(away, "status")
    assert done.code == 1
    assert f"kafka.bootstrap_servers: {server}" in done.err
    assert done.err.count("\n") == 1


# A shell lets what it starts in the background ignore Ctrl-C; these tests may run there.
HEARS_INTERRUPTS = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from cli.main import run
sys.exit(run())
"""


@pytest.mark.kafka
def test_interrupted(fresh: dict[str, str], broker: Broker, tmp_path: Path) -> None:
    """Ctrl-C exits with 130 and says nothing."""
    assert broker.alive
    assert headrace(fresh, "topics", "create").code == 0
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}
    error = tmp_path / "stderr"
    with (
        error.open("wb") as err,
        subprocess.Popen(
            [sys.executable, "-c", HEARS_INTERRUPTS, "load", "-"],
            cwd=ROOT,
            env={**kept, **fresh},
            stdin=subprocess.PIPE,
            stderr=err,
        ) as child,
    ):
        assert child.stdin is not None
        child.stdin.write(lines({"id": "a", "text": "x"}))
        child.stdin.flush()
        while headrace(fresh, "status", "--json").json["lag"] == 0:
            time.sleep(0.1)  # then it waits for the next line
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 130
    assert error.read_text() == ""
