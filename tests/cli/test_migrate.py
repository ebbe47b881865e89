from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from operators.model import ModelSource, open_bundle
from sinks.aliases import Alias, Aliases, Target
from sinks.schema import TableSchema
from sinks.store import TableStore
from tests.cli.conftest import headrace
from tests.operators.model.tiny import WIDTH, model_folder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """The settings of a table of a tiny model; there is no broker."""
    return {
        "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "HEADRACE_TABLE__URI": str(tmp_path / "lancedb"),
        "HEADRACE_MODEL__NAME": str(model_folder(tmp_path / "old")),
        "HEADRACE_MODEL__CACHE": str(tmp_path / "cache"),
        "HEADRACE_MODEL__RUNTIME": "onnxruntime",
        "HEADRACE_MODEL__PRECISION": "fp32",
    }


def table(env: dict[str, str], name: str, fingerprint: str = "f-old") -> TableStore:
    """A table with nothing in it."""
    store = TableStore(env["HEADRACE_TABLE__URI"], name, TableSchema(WIDTH), "m", fingerprint)
    store.ensure()
    return store


def begun(env: dict[str, str]) -> tuple[Aliases, Alias]:
    """Both tables of a migration whose new one follows the topic, and its alias."""
    old, new = (
        Target(table(env, name).name, f"/models/{name}", f"f-{name}", None, f"app-{name}", "e", "d")
        for name in ("documents", "documents-new")
    )
    aliases, alias = Aliases(env["HEADRACE_TABLE__URI"]), Alias("documents", old, new)
    aliases.change(None, alias)
    return aliases, alias


def test_nothing_begun(env: dict[str, str]) -> None:
    """Where no migration was begun the status says so, and what needs one is refused by name."""
    table(env, "documents")
    assert headrace(env, "migrate", "--status", "--json").json["phase"] == "none"
    for option in ("--rollback", "--drop-old", "--abandon"):
        done = headrace(env, "migrate", option)
        assert done.code == 1
        assert "headrace migrate --model NAME" in done.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "--model"),
        (["--status", "--drop-old"], "goes alone"),
        (["--abandon", "--model", "x"], "goes alone"),
        (["--model", "x", "--from", "nowhere"], "--from: nowhere"),
    ],
)
def test_wrong_usage(env: dict[str, str], arguments: list[str], named: str) -> None:
    """What can't be meant is wrong usage, in one line."""
    table(env, "documents")
    done = headrace(env, "migrate", *arguments)
    assert done.code == 2
    assert named in done.err
    assert done.err.count("\n") == 1


def test_the_same_model(env: dict[str, str], tmp_path: Path) -> None:
    """A table that has the model's vectors already is left as it is, whatever the model's name."""
    name = env["HEADRACE_MODEL__NAME"]
    bundle = open_bundle(ModelSource(name, tmp_path / "cache"))
    table(env, "documents", bundle.fingerprint)
    done = headrace(env, "migrate", "--model", name)
    assert done.code == 2
    assert bundle.fingerprint in done.err
    assert Aliases(env["HEADRACE_TABLE__URI"]).all() == {}


def test_no_table(env: dict[str, str], tmp_path: Path) -> None:
    """Without a table there is nothing to change."""
    done = headrace(env, "migrate", "--model", str(model_folder(tmp_path / "new", seed=1)))
    assert done.code == 1
    assert "table.name: documents" in done.err


def test_another_one_under_way(env: dict[str, str]) -> None:
    """A second model is refused while the first one's table is made, with both ways out."""
    begun(env)
    done = headrace(env, "migrate", "--model", "third")
    assert done.code == 1
    assert "/models/documents-new" in done.err
    assert "--abandon" in done.err


def test_abandon(env: dict[str, str], tmp_path: Path) -> None:
    """A new table that nobody reads can be deleted, and nothing else is."""
    aliases, _ = begun(env)
    told = headrace(env, "migrate", "--status", "--json").json
    assert (told["phase"], told["behind"]) == ("following", 0)
    assert headrace(env, "migrate", "--drop-old").code == 1
    assert headrace(env, "migrate", "--abandon", "--json").json["phase"] == "none"
    left = sorted(path.name for path in (tmp_path / "lancedb").glob("doc*"))
    assert left == ["documents.lance"]
    assert aliases.resolve("documents") is None
    assert headrace(env, "migrate", "--abandon").code == 1


def test_back_and_drop(env: dict[str, str], tmp_path: Path) -> None:
    """After the switch it can be taken back; only a table that nobody reads is dropped."""
    aliases, alias = begun(env)
    aliases.change(alias, alias.switched())
    told = headrace(env, "migrate", "--status")
    assert "export HEADRACE_TABLE__NAME=documents-new\n" in told.out
    assert "export HEADRACE_MODEL__NAME=/models/documents-new\n" in told.out
    assert headrace(env, "migrate", "--abandon").code == 1
    assert headrace(env, "migrate", "--rollback", "--json").json["current"]["table"] == "documents"
    assert aliases.resolve("documents") is None
    assert headrace(env, "migrate", "--drop-old").code == 1
    aliases.change(alias, alias.switched())
    # From the new deployment, too, which names the new table.
    changed = env | {"HEADRACE_TABLE__NAME": "documents-new"}
    assert headrace(changed, "migrate", "--drop-old", "--json").json["phase"] == "none"
    left = sorted(path.name for path in (tmp_path / "lancedb").glob("doc*"))
    assert left == ["documents-new.lance"]
    assert headrace(env, "migrate", "--rollback").code == 1
