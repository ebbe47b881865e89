from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from harness import connect
from harness.broker import Broker
from harness.connect import Connect
from harness.process import ROOT, HarnessError

if TYPE_CHECKING:
    from pathlib import Path


def test_missing_jars_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says how to fetch them."""
    monkeypatch.setattr(connect, "JARS", tmp_path)
    with pytest.raises(HarnessError, match="make debezium"):
        Connect(Broker(folder=tmp_path), tmp_path).start()


def test_connect_is_of_the_brokers_version() -> None:
    """What deploy/debezium fetches goes with what deploy/kafka does."""
    versions = {
        name: re.findall(r"<(kafka|log4j)\.version>(.*?)<", _pom(name))
        for name in ("kafka", "debezium")
    }
    assert sorted(versions["kafka"]) == sorted(versions["debezium"])


def _pom(name: str) -> str:
    return (ROOT / "deploy" / name / "pom.xml").read_text(encoding="utf-8")
