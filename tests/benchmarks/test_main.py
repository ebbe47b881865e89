from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks.__main__ import main
from benchmarks.plan import LEVELS
from benchmarks.subjects import FLOW
from harness.process import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from _pytest.capture import CaptureFixture


@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_a_small_run_measures_everything(tmp_path: Path) -> None:
    """A run of a few documents shows all tables and writes figures for each subject and load."""
    path = tmp_path / "figures.json"
    options = ("--docs", "16", "--rounds", "1", "--seconds", "1", "--processes", "2")
    done = subprocess.run(
        (sys.executable, "-m", "benchmarks", *options, "--rivals", "none", "--json", path),
        cwd=ROOT,
        env={**os.environ, "BENCH_RIVALS": "all"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(path.read_text())
    flows = [one for one in found["throughput"] if one["subject"] == FLOW]
    assert {(one["texts"], one["processes"]) for one in flows} == {("short", 2), ("medium", 2)}
    for one in flows:
        assert one["docs_per_cpu_s_model"]["median"] > 0
        assert one["peak_mib"]["median"] > 0
        assert 0 <= one["shares"]["padding"] < 1
        assert one["shares"]["stage_model"] > 0
    levels = [(one["processes"], one["load"]) for one in found["freshness"]]
    assert levels == [(2, load) for load in (*LEVELS, None)]
    assert all(one["topic_ms"]["p50"] > 0 < one["table_ms"]["p50"] for one in found["freshness"])
    assert "Backlog of short texts" in done.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--docs", "many"), "--docs, --rounds, --seconds: invalid literal"),
        (("--docs", "3"), "at least 8, 1 and 1"),
        (("--rivals", "nobody"), "--rivals: 'nobody': must be all, none or of loop"),
        (("--read", "nothing.json"), "nothing.json: no figures there"),
    ],
)
def test_wrong_options_are_named(
    options: tuple[str, ...], told: str, capsys: CaptureFixture[str]
) -> None:
    """A wrong option is told in one line, with exit code 2, before anything starts."""
    assert main(options) == 2
    errors = capsys.readouterr().err
    assert told in errors
    assert errors.count("\n") == 1
