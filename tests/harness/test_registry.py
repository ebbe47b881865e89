from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient

from harness import registry as module
from harness.process import HarnessError
from harness.registry import Registry, install
from tests.registries import NOTE_JSON, Shelf

if TYPE_CHECKING:
    from pathlib import Path


def test_it_comes_back(tmp_path: Path) -> None:
    """Killed and started again it is at the same place, with the schemas that it had."""
    with Registry(tmp_path) as running:
        with closing(Shelf(running)) as shelf:
            number = shelf.put("JSON", NOTE_JSON.replace('"place.json"', '"#"'))
        running.kill()
        running.start()
        with SchemaRegistryClient({"url": running.url}) as client:
            assert client.get_schema(number).schema_type == "JSON"


def test_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Maven or Java it says so; what can't be fetched is told in one line."""
    monkeypatch.setattr(module, "INSTALLED", tmp_path / "registry")
    monkeypatch.setattr(module, "_POM", tmp_path / "gone.xml")
    with pytest.raises(HarnessError, match=r"gone.xml: ") as told:
        install()
    assert len(str(told.value).splitlines()) == 1
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HarnessError, match=r"^mvn: not found"):
        install()
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(HarnessError, match=r"^java: not found"):
        Registry(tmp_path)._command()
