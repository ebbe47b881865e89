from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from flows.registering import embedding_schema, registry_of, values_of
from flows.settings import Settings, load
from harness.process import ROOT


def settings(**variables: str) -> Settings:
    """The settings of an environment."""
    environ = {f"HEADRACE_{name}": value for name, value in variables.items()}
    return load({**environ, "HEADRACE_REGISTRY__URL": "http://r"}, Path("/nonexistent"))


def test_none_is_wanted() -> None:
    """Where nothing is read or written under a registry there is none, whatever its address."""
    assert registry_of(settings()) is None
    assert values_of(settings(), None) is None


@pytest.mark.parametrize(("key", "keys"), [("text", False), ("registry", True)])
def test_one_that_is_read(key: str, keys: bool) -> None:
    """It may be away as long as the broker, and keys are what the setting says."""
    wanted = settings(SOURCE__ENCODING="registry", REGISTRY__KEY=key, KAFKA__OUTAGE_S="7")
    registry = registry_of(wanted)
    assert registry is not None
    with closing(registry):
        assert registry.outage_s == 7
        values = values_of(wanted, registry)
        assert values is not None
        assert values.keys is keys


def test_one_that_is_written_alone() -> None:
    """What is written under a registry says nothing of what is read."""
    wanted = settings(EMBEDDINGS__ENCODING="registry")
    registry = registry_of(wanted, 1.0)
    assert registry is not None
    with closing(registry):
        assert registry.outage_s == 1
        assert values_of(wanted, registry) is None


def test_without_its_packages() -> None:
    """Where the extra is not installed the error names it; what needs no registry needs none."""
    program = """
import os, sys
sys.modules["fastavro"] = None
from pathlib import Path
from flows.registering import registry_of
from flows.settings import load
from headrace.errors import UsageError
import flows.frame, cli.check
assert registry_of(load({}, Path("/nonexistent"))) is None
environ = {"HEADRACE_SOURCE__ENCODING": "registry", "HEADRACE_REGISTRY__URL": "http://r"}
try:
    registry_of(load(environ, Path("/nonexistent")))
except UsageError as error:
    sys.exit(str(error))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == (
        "registry.url: needs packages that are not installed (fastavro): "
        "pip install 'headrace[registry]'"
    )


def test_the_schema_of_embeddings() -> None:
    """It is the file that people read, whose first message is the one that is written."""
    text = embedding_schema()
    assert text == (ROOT / "proto/headrace/v1/embedding.proto").read_text()
    assert text.index("message Embedding {") == text.index("message ")
