"""OpenVINO in a process that lives long and gets signals."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from operators.model import ModelSource, open_bundle
from tests.operators.model import tiny
from tests.operators.model.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SIGNALLED = """
import os, signal, sys
from pathlib import Path
from operators.model.vino import VinoRuntime
older, newer = [VinoRuntime(Path(sys.argv[1]), "fp32") for _ in range(2)]
del older
del newer
signal.signal(signal.SIGUSR1, lambda *_: print("heard"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_a_signal_is_heard_after_runtimes_are_gone(tmp_path: Path) -> None:
    """Runtimes that were dropped leave no dead signal stack that the next signal would land on."""
    pytest.importorskip("openvino")
    model = tiny.model_folder(tmp_path / "m", product=True)
    graph = open_bundle(ModelSource(str(model), tmp_path / "cache")).onnx_file
    run = subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(graph)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, "heard\n"), run.stderr
