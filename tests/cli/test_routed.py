"""The commands where each record names its table."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from flows.access import encoder_of, routed_tables
from flows.settings import load
from operators.encoding import Input
from operators.records import Kind, Lane
from operators.routing import TABLE
from sinks.router import RoutedWriter
from sinks.rows import table_rows
from tests.cli.conftest import headrace, lines
from tests.operators.model.tiny import model_folder
from tests.samples import Fields, Row, outcomes, tombstone
from tests.sinks.tables import NEVER

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from flows.settings import Settings
    from harness.broker import Broker
    from sinks.routed import RoutedStore

TEMPLATE = "docs_{/metadata/tenant}"

BROKEN = "_headrace_directory-docs-metadata-tenant.lance"
"""The folder of the directory."""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """The settings of several tables of a tiny model; there is no broker."""
    return {
        "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "HEADRACE_TABLE__URI": str(tmp_path / "lancedb"),
        "HEADRACE_TABLE__NAME": TEMPLATE,
        "HEADRACE_MODEL__NAME": str(model_folder(tmp_path / "model")),
        "HEADRACE_MODEL__CACHE": str(tmp_path / "cache"),
        "HEADRACE_MODEL__RUNTIME": "onnxruntime",
        "HEADRACE_MODEL__PRECISION": "fp32",
    }


@pytest.fixture
def topical(env: dict[str, str], fresh: dict[str, str]) -> dict[str, str]:
    """The same with a broker, and topics that have nothing in them."""
    whole = fresh | {name: value for name, value in env.items() if "KAFKA" not in name}
    assert headrace(whole, "topics", "create", "--partitions", "1").code == 0
    return whole


@dataclass
class Tables:
    """The tables of some settings, and the writer of a flow.

    Attributes:
        env: The settings.
    """

    env: dict[str, str]

    def __post_init__(self) -> None:
        settings = load(self.env, Path("/nowhere")).each()[0]
        self._lane = Lane(settings.source.topics[0], 0)
        self._encoder = encoder_of(settings)
        self._next = 0
        self.store = routed_tables(settings, self._encoder)
        self.store.ensure()
        self.writer = RoutedWriter(self.store, NEVER, 1)

    def write(self, *documents: tuple[str, str, str]) -> None:
        """Commit documents: the id of each, its tenant and its text, which empty is a deletion."""
        texts = self._encoder.encode([Input(text) for _, _, text in documents])
        rows = [
            Row(
                Kind.UPSERT,
                identity,
                0,
                text,
                Fields(typed={TABLE: f"docs_{tenant}"}),
                encoded,
            )
            if text
            else tombstone(identity)
            for (identity, tenant, text), encoded in zip(documents, texts, strict=True)
        ]
        batch = outcomes(rows, self._next, lane=self._lane, embedded_at=int(time.time() * 1000))
        self._next = batch.end
        rows_of_them = self.store.schema.rows(table_rows([batch]))
        self.writer.commit(rows_of_them, {self._lane.key: batch.end})

    def lose(self, name: str) -> None:
        """Delete a table."""
        shutil.rmtree(self.store.table(name).path)
