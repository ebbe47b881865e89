from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

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


def test_distill(tmp_path: Path) -> None:
    """Distill makes a bundle that inspect shows by its folder, fitted to the texts of a file."""
    env = {
        "HEADRACE_MODEL__NAME": str(tiny.model_folder(tmp_path / "model")),
        "HEADRACE_MODEL__CACHE": str(tmp_path / "cache"),
        "HEADRACE_MODEL__RUNTIME": "onnxruntime",
    }
    texts = tmp_path / "texts.ndjson"
    words = ("".join(pair) for pair in product("abcdefghij", repeat=3))
    texts.write_bytes(
        lines({"id": "gone", "deleted": True}, *({"text": " ".join(w)} for w in words))
    )
    out = str(tmp_path / "out")
    call = ("model", "distill", out, "--dimension", "6", "--texts", str(texts))
    made = headrace(env, *call, "--json")
    assert made.code == 0, made.err
    assert (made.json["dimension"], made.json["texts"]) == (6, 1000)
    assert made.json["overlap_at_10"] > made.json["overlap_at_10_before"]
    shown = headrace({**env, "HEADRACE_MODEL__NAME": out}, "model", "inspect", "--json").json
    assert shown["fingerprint"] == made.json["fingerprint"]
    assert (shown["pooling"], shown["max_tokens"]) == ("static", 2048)
    again = headrace(env, *call)
    assert (again.code, again.err.count("\n")) == (2, 1)
    assert f"OUT: {out} — is there already" in again.err
    told = headrace(env, "model", "distill", str(tmp_path / "other"), "--dimension", "8")
    assert f"{tmp_path / 'other'}: " in told.out
    assert "33 tokens of 8 floats" in told.out


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"nope", "line 2: not JSON"),
        (b"[1]", "line 2: must be"),
        (b'{"text": 1}', "line 2: must be"),
    ],
)
def test_distill_names_a_wrong_line(tmp_path: Path, line: bytes, text: str) -> None:
    """A line that is no document is told by its number, and nothing is made."""
    env = {"HEADRACE_MODEL__NAME": str(tmp_path / "model")}
    out = tmp_path / "out"
    stdin = b"\n" + line + b"\n"
    done = headrace(env, "model", "distill", str(out), "--texts", "-", stdin=stdin)
    assert done.code == 1
    assert text in done.err
    assert not out.exists()
    missing = headrace(env, "model", "distill", str(out), "--texts", str(tmp_path / "none"))
    assert missing.code == 2
    assert "--texts: " in missing.err


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
    """A file that is missing, wrong or too short is told in one line."""
    file = tmp_path / "texts.ndjson"
    for content, code, text in (
        (None, 2, "--texts: "),
        (b'{"text": "a"}\nnot json\n', 1, "line 2: not JSON"),
        (b'{"text": "a"}\n', 2, "1 texts; give 100 or more"),
    ):
        if content is not None:
            file.write_bytes(content)
        done = headrace(model, "model", "quantize", "--texts", str(file))
        assert done.code == code
        assert text in done.err
        assert done.err.count("\n") == 1
