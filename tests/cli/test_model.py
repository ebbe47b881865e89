from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import headrace, lines
from tests.operators.model import tiny

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


def test_quantize(tmp_path: Path) -> None:
    """Quantize makes the int8 form on a file's texts, once, and inspect shows it."""
    model = tiny.model_folder(tmp_path / "m", product=True)
    env = {"HEADRACE_MODEL__NAME": str(model), "HEADRACE_MODEL__CACHE": str(tmp_path / "cache")}
    env["HEADRACE_MODEL__PRECISION"] = "int8"
    missing = headrace(env, "model", "inspect")
    assert missing.code == 1
    assert "make it: headrace model quantize" in missing.err
    file = tmp_path / "texts.ndjson"
    file.write_bytes(lines(*({"text": f"a b {'c d ' * (n % 7)}{n}"} for n in range(150))))
    made = headrace(env, "model", "quantize", "--texts", str(file), "--json").json
    assert (made["texts"], made["products"], made["kept"]) == (150, 1, [])
    again = headrace(env, "model", "quantize", "--texts", str(file))
    assert f"fingerprint: {made['fingerprint']}\n" in again.out
    told = headrace(env, "model", "inspect", "--json").json
    assert (told["precision"], told["fingerprint"]) == ("int8", made["fingerprint"])
    assert Path(told["int8_file"]).parent == Path(made["path"])
    assert Path(told["onnx_file"]) == Path(made["path"]).parent / "model.onnx"
    shown = headrace(env, "model", "inspect").out
    assert "refused: none" in shown
    assert "onnxruntime int8: docs_per_cpu_second" in shown or "overlap_at_10" in shown


def test_texts_that_wont_do(model: dict[str, str], tmp_path: Path) -> None:
    """A file that is missing, wrong or too short is told in one line, as wrong usage."""
    file = tmp_path / "texts.ndjson"
    for content, text in (
        (None, "can't be read"),
        (b'{"text": "a"}\nnot json\n', "record 2 is no"),
        (b'{"text": "a"}\n', "1 texts; give 100 or more"),
    ):
        if content is not None:
            file.write_bytes(content)
        done = headrace(model, "model", "quantize", "--texts", str(file))
        assert done.code == 2
        assert text in done.err
        assert done.err.count("\n") == 1
