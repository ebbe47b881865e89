from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import headrace

FIELDS = {
    *("path", "onnx_file", "tokenizer_file", "dimension", "max_tokens"),
    *("runtime", "precision", "fingerprint"),
}


def test_export_and_inspect(model: dict[str, str]) -> None:
    """Export builds the bundle that inspect shows, with the fields that scripts rely on."""
    exported = headrace(model, "model", "export")
    assert exported.code == 0, exported.err
    told = headrace(model, "model", "inspect", "--json").json
    assert told.keys() >= FIELDS
    assert exported.out == f"path: {told['path']}\nfingerprint: {told['fingerprint']}\n"
    assert Path(told["onnx_file"]).is_file()
    assert Path(told["tokenizer_file"]).is_file()
    assert (told["dimension"], told["runtime"], told["precision"]) == (384, "onnxruntime", "fp32")
    assert "dimension: 384" in headrace(model, "model", "inspect").out


def test_no_such_model(model: dict[str, str]) -> None:
    """A model that is not to be had is told in one line."""
    done = headrace({**model, "HEADRACE_MODEL__NAME": "/nowhere/model"}, "model", "export")
    assert done.code == 1
    assert "model.name: /nowhere/model" in done.err
    assert done.err.count("\n") == 1
