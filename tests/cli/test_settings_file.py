from __future__ import annotations

import tempfile
import tomllib
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cli.settings_file import settings_file
from flows.settings import load, settings_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
VALUES = st.recursive(
    TEXT | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, width=32),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
SECTIONS = st.dictionaries(TEXT, st.dictionaries(TEXT, VALUES, max_size=4), max_size=4)
POINTERS = st.from_regex(r"(/[a-z~0 \"'\\]{1,8}){1,3}", fullmatch=True)


@given(SECTIONS, TEXT)
def test_what_is_written_is_read(sections: dict[str, dict[str, Any]], comment: str) -> None:
    """Any settings come back from the file as they were, whatever is in names, texts, comments."""
    comments = {f"{name}.{key}": comment for name, part in sections.items() for key in part}
    assert tomllib.loads(settings_file(sections, comments, comment)) == sections


@given(
    id=st.just("key") | POINTERS,
    text=st.lists(POINTERS, min_size=1, max_size=12),
    metadata=st.dictionaries(
        st.from_regex(r"x[a-z_]{1,8}", fullmatch=True),
        st.fixed_dictionaries({"at": POINTERS, "type": st.sampled_from(["string", "int64"])}),
    ),
    delete_when=st.none() | TEXT.filter(bool),
)
def test_settings_are_equal(**source: Any) -> None:
    """A mapping that is written is the same mapping when a flow loads it."""
    given_source = {name: value for name, value in source.items() if value is not None}
    sections = {"source": {"topics": ["orders"], **given_source}, "table": {"name": "orders"}}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "headrace.toml").write_text(
            settings_file(sections, {}, "head"), encoding="utf-8"
        )
        assert load({}, Path(folder)) == settings_of(sections)


def test_as_a_person_would_write_it() -> None:
    """Comments stand over their settings, tables behind them, and long lists on several lines."""
    sections: dict[str, dict[str, Any]] = {
        "source": {"metadata": {"price": {"at": "/price"}}, "text": ["/title", "/body"]},
        "table": {"name": "x", "long": ["a" * 60, "b" * 60]},
    }
    written = settings_file(sections, {"source.text": "What is\nembedded."}, "Head.")
    assert written.splitlines() == [
        "# Head.",
        "",
        "[source]",
        "# What is",
        "# embedded.",
        'text = ["/title", "/body"]',
        "",
        "[source.metadata]",
        'price = { at = "/price" }',
        "",
        "[table]",
        'name = "x"',
        "long = [",
        f'    "{"a" * 60}",',
        f'    "{"b" * 60}",',
        "]",
    ]
