import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
import psutil
import pytest
from _pytest.capture import CaptureFixture

from harness.demo.main import main
from harness.demo.run import SEARCHES
from harness.process import ROOT
from tests.harness.test_process import gone, wait_until

COMMAND = (sys.executable, "-m", "harness.demo", "--data")


def environment(documents: str) -> Mapping[str, str]:
    """The environment of a demo of so many documents."""
    return {**os.environ, "DEMO_DOCS": documents, "PYTHONUNBUFFERED": "1"}


@pytest.mark.kafka
@pytest.mark.timeout(300)
def test_nothing_is_lost_from_end_to_end(tmp_path: Path) -> None:
    """All steps run, the flow is killed, and the count at the end is clean."""
    folder = tmp_path / "demo"
    done = subprocess.run(
        (*COMMAND, folder),
        cwd=ROOT,
        env=environment("120"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "missing 0, duplicates 0" in lines
    assert sum(line.startswith("$ headrace search ") for line in lines) == len(SEARCHES) + 1 == 4
    assert sum(line.startswith("score  id") for line in lines) == 4
    assert any(line.startswith("Killed (exit code -9)") for line in lines)
    assert any(line.startswith("From written to searchable: p50 ") for line in lines)
    assert {"kafka", "lancedb", "recovery", "flow.log"} <= {p.name for p in folder.iterdir()}
    assert not done.stderr


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("sent", "line"),
    [
        (signal.SIGINT, "Apache Kafka runs"),
        (signal.SIGINT, "$ headrace topics"),
        (signal.SIGINT, "Process "),
        (signal.SIGTERM, "Process "),
    ],
)
def test_ctrl_c_leaves_nothing_running(tmp_path: Path, line: str, sent: signal.Signals) -> None:
    """Interrupted, whatever it is at, it ends with 130 and one line, and so does all it started."""
    with subprocess.Popen(
        (*COMMAND, tmp_path / "demo"),
        cwd=ROOT,
        env=environment("120"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        for printed in running.stdout:
            if printed.startswith(line):
                break
        started = psutil.Process(running.pid).children(recursive=True)
        running.send_signal(sent)
        rest, errors = running.communicate(timeout=20)
        assert running.returncode == 130
    assert started
    assert rest.endswith("Stopped; nothing is left running.\n")
    assert not errors
    wait_until(lambda: all(gone(child.pid) for child in started))


@pytest.mark.kafka
@pytest.mark.timeout(300)
def test_kept_open(tmp_path: Path) -> None:
    """With DEMO_KEEP=1 it ends with the page open, over a flow that runs, until Ctrl-C."""
    with subprocess.Popen(
        (*COMMAND, tmp_path / "demo"),
        cwd=ROOT,
        env={**environment("20"), "DEMO_KEEP": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        url = ""
        for printed in running.stdout:
            if found := re.match(r"The page is on (\S+) \.", printed):
                url = found[1]
                break
        assert "<title>Headrace</title>" in httpx.get(url).text

        def flows() -> bool:
            state = httpx.get(f"{url}v1/live", timeout=30).json()
            return not state["flow"] and not state["kafka"] and bool(state["latest"])

        wait_until(flows, 60)
        started = psutil.Process(running.pid).children(recursive=True)
        running.send_signal(signal.SIGINT)
        rest, errors = running.communicate(timeout=30)
        assert running.returncode == 130
    assert rest.endswith("Stopped; nothing is left running.\n")
    assert not errors
    wait_until(lambda: all(gone(child.pid) for child in started))


@pytest.mark.parametrize("given", ["many", "0", "-5", "2.5", ""])
def test_a_wrong_size_is_named(
    given: str, monkeypatch: pytest.MonkeyPatch, capsys: CaptureFixture[str]
) -> None:
    """A number of documents that is none is told in one line, with exit code 2."""
    monkeypatch.setenv("DEMO_DOCS", given)
    assert main([]) == 2
    assert capsys.readouterr().err == (
        f"demo: DEMO_DOCS: {given!r}: must be a whole number from 20 on\n"
    )


def test_a_folder_of_others_is_left_alone(tmp_path: Path, capsys: CaptureFixture[str]) -> None:
    """A folder that no demo has written is refused, and keeps what it holds."""
    kept = tmp_path / "lancedb"
    kept.mkdir()
    assert main(["--data", str(tmp_path)]) == 2
    assert "holds something else; name another folder" in capsys.readouterr().err
    assert kept.exists()
