from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import lance
import numpy as np
import pytest

from flows.access import encoder_of, single_table
from flows.settings import load
from operators.encoding import Encoded
from operators.records import Kind, Lane
from sinks.aliases import Alias, Aliases, Target
from sinks.rows import table_rows
from sinks.schema import TableSchema
from sinks.search import Query, find
from tests.cli.conftest import headrace
from tests.operators.model.tiny import model_folder
from tests.samples import Fields, Row, outcomes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import World


@pytest.mark.kafka
def test_nearest(world: World) -> None:
    """The nearest documents come first, with whole metadata, and deleted ones never."""
    found = headrace(world.env, "search", "food from the oven", "--json").json
    assert [item["id"] for item in found[:2]] == ["bread", "cake"]
    assert len(found) == 4
    assert 1 >= found[0]["score"] > found[1]["score"]
    assert found[1]["metadata"] == {"kind": "food", "price": 12.5}
    shown = headrace(world.env, "search", "food from the oven", "-k", "1").out
    assert "Baking bread" in shown
    assert "cake" not in shown


@pytest.mark.kafka
def test_filter(world: World) -> None:
    """A filter on a typed column is met by all that is found."""
    found = headrace(world.env, "search", "food", "--filter", "price > 100", "--json").json
    assert [item["id"] for item in found] == ["ship"]
    nothing = headrace(world.env, "search", "food", "--filter", "price > 1000")
    assert (nothing.code, nothing.out) == (0, "nothing found\n")


@pytest.mark.kafka
@pytest.mark.parametrize("where", ["price <", "no_such < 3", "price", "price < 'a", ""])
def test_bad_filter(world: World, where: str) -> None:
    """A filter that can't be read is wrong usage, told in one line."""
    done = headrace(world.env, "search", "food", "--filter", where)
    assert done.code == 2
    assert done.err.startswith("headrace: --filter: ")
    assert done.err.count("\n") == 1
    assert "/src/" not in done.err


@pytest.mark.kafka
def test_other_model(world: World) -> None:
    """Words are never compared with another model's vectors."""
    done = headrace({**world.env, "HEADRACE_MODEL__MAX_TOKENS": "64"}, "search", "food")
    assert done.code == 1
    assert "fingerprint" in done.err
    assert done.err.count("\n") == 1


def test_no_table(model: dict[str, str], tmp_path: Path) -> None:
    """A missing table is named with what makes it."""
    done = headrace({**model, "HEADRACE_TABLE__URI": str(tmp_path)}, "search", "food")
    assert done.code == 1
    assert "table.name: documents" in done.err
    assert "flows.embed" in done.err


def test_table_by_name(tmp_path: Path) -> None:
    """The one table may be named, as readers name it; any other name is refused."""
    env = {
        "HEADRACE_TABLE__URI": str(tmp_path / "lancedb"),
        "HEADRACE_MODEL__NAME": str(model_folder(tmp_path / "model")),
        "HEADRACE_MODEL__CACHE": str(tmp_path / "cache"),
        "HEADRACE_MODEL__RUNTIME": "onnxruntime",
        "HEADRACE_MODEL__PRECISION": "fp32",
    }
    settings = load(env, tmp_path)
    encoder = encoder_of(settings)
    new = replace(single_table(settings, encoder), name="documents-new")
    new.ensure()
    target = Target(new.name, settings.model.name, encoder.fingerprint, None, "a", "e", "d")
    Aliases(settings.table.uri).change(None, Alias("documents", target))
    done = headrace(env, "search", "food", "--table", "documents")
    assert (done.code, done.out) == (0, "nothing found\n")
    done = headrace(env, "search", "food", "--table", "docs")
    told = "headrace: --table: docs: the only table is documents, as table.name says\n"
    assert (done.code, done.err) == (2, told)


@pytest.mark.parametrize("indexed", [False, True])
def test_chunks(tmp_path: Path, *, indexed: bool) -> None:
    """K documents are found though one of them has many nearer chunks; its best one counts."""
    random = np.random.default_rng(1)
    schema = TableSchema(8)
    target = np.eye(8, dtype=np.float32)[0]
    near = target + random.normal(0, 0.05, (40, 8)).astype(np.float32)
    near[17] = target
    others = random.normal(0, 1, (300, 1, 8)).astype(np.float32)
    vectors = {"long": near, **{f"d{i}": vector for i, vector in enumerate(others)}}
    rows = [
        Row(Kind.UPSERT, name, 0, f"text of {name}", Fields(), _encoded(vector))
        for name, vector in vectors.items()
    ]
    batch = outcomes(rows, lane=Lane("t", 0))
    dataset = lance.write_dataset(schema.rows(table_rows([batch])), str(tmp_path / "t.lance"))
    if indexed:
        dataset.create_index("vector", "IVF_FLAT", metric="cosine", num_partitions=2)
        dataset = lance.dataset(str(tmp_path / "t.lance"))
    found = find(dataset, Query(5, vector=target), ())
    assert len({item.id for item in found}) == len(found) == 5
    assert found[0].id == "long"
    assert found[0].score == pytest.approx(1)


def _encoded(vectors: np.ndarray) -> Encoded:
    count = len(vectors)
    return Encoded(vectors, ((0, 4),) * count, (1,) * count, count, truncated=False)
