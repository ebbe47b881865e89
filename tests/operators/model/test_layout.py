"""Reading a model's folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from operators.model.errors import ModelError
from operators.model.layout import read_layout, tokenizer_text
from tests.operators.model import tiny

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, content: object) -> None:
    """Replaces a settings file."""
    path.write_text(json.dumps(content))


def test_settings_come_from_their_files(tmp_path: Path) -> None:
    """Length, positions, pooling and prompts are those of the files."""
    prompts = {"query": "query: ", "passage": "search: "}
    layout = read_layout(tiny.model_folder(tmp_path / "m", pooling="cls", prompts=prompts))
    assert (layout.max_tokens, layout.max_positions, layout.pad_id) == (32, 64, 0)
    assert layout.pooling == ("cls",)
    assert (layout.document_prompt, layout.query_prompt) == ("search: ", "query: ")


def test_older_pooling_flags_are_read(tmp_path: Path) -> None:
    """The flags of older releases mean the same ways of pooling."""
    folder = tiny.model_folder(tmp_path / "m")
    flags = {"pooling_mode_max_tokens": True, "pooling_mode_cls_token": True}
    write(folder / "1_Pooling" / "config.json", flags)
    assert read_layout(folder).pooling == ("cls", "max")


def test_default_prompt_serves_both(tmp_path: Path) -> None:
    """A default prompt stands in where documents and queries have none of their own."""
    folder = tiny.model_folder(tmp_path / "m")
    config = {"prompts": {"s": "search: "}, "default_prompt_name": "s"}
    write(folder / "config_sentence_transformers.json", config)
    layout = read_layout(folder)
    assert (layout.document_prompt, layout.query_prompt) == ("search: ", "search: ")


def test_length_falls_back_to_the_tokenizer(tmp_path: Path) -> None:
    """Without a length of its own a model takes the least of tokenizer and positions."""
    folder = tiny.model_folder(tmp_path / "m")
    write(folder / "sentence_bert_config.json", {})
    assert read_layout(folder).max_tokens == 64
    write(folder / "tokenizer_config.json", {"model_max_length": 48})
    assert read_layout(folder).max_tokens == 48


@pytest.mark.parametrize("kind", ["WordWeights", "CNN"])
def test_unknown_module_is_refused(tmp_path: Path, kind: str) -> None:
    """A module that isn't supported is refused by its name."""
    folder = tiny.model_folder(tmp_path / "m")
    write(folder / "modules.json", [{"path": "", "type": f"sentence_transformers.models.{kind}"}])
    with pytest.raises(ModelError, match=f"model module: {kind}"):
        read_layout(folder)


def test_pooling_without_prompt_is_refused(tmp_path: Path) -> None:
    """A model that pools without its prompt is refused rather than run wrongly."""
    folder = tiny.model_folder(tmp_path / "m", prompts={"query": "query: "})
    write(folder / "1_Pooling" / "config.json", {"pooling_mode": "mean", "include_prompt": False})
    with pytest.raises(ModelError, match="leaves the prompt out"):
        read_layout(folder)


def test_damaged_settings_are_named(tmp_path: Path) -> None:
    """A file that isn't JSON is named."""
    folder = tiny.model_folder(tmp_path / "m")
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json"):
        read_layout(folder)


def test_tokenizer_is_rewritten() -> None:
    """The bundle's tokenizer truncates at the model's length, doesn't pad, and lowers case."""
    raw = json.dumps({"padding": {"x": 1}, "truncation": None, "normalizer": {"type": "NFC"}})
    made = json.loads(tokenizer_text(raw.encode(), max_tokens=256, lowercase=True))
    assert made["padding"] is None
    assert made["truncation"]["max_length"] == 256
    assert [step["type"] for step in made["normalizer"]["normalizers"]] == ["Lowercase", "NFC"]
