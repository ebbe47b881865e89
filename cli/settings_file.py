"""A settings file with comments, as a person would write it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from cli.output import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["settings_file"]

WIDTH: Final = 100
"""Characters of a line; a list or a table that would be longer takes a line for each part."""

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def settings_file(
    sections: Mapping[str, Mapping[str, Any]], comments: Mapping[str, str], head: str
) -> str:
    """The text of the file.

    Args:
        sections: The settings of each section: texts, truth values, numbers, lists, and tables.
        comments: What stands over a setting, by its full name.
        head: What stands over all.
    """
    lines = [*_comment(head)]
    for name, section in sections.items():
        lines += ["", f"[{_name(name)}]"]
        tables = {key: value for key, value in section.items() if isinstance(value, dict)}
        for key, value in section.items():
            if key not in tables:
                lines += _comment(comments.get(f"{name}.{key}", ""))
                lines += [f"{_name(key)} = {_value(value)}"]
        for key, table in tables.items():
            # Behind all others of its section: what follows its heading is its own.
            lines += ["", *_comment(comments.get(f"{name}.{key}", ""))]
            lines += [f"[{_name(name)}.{_name(key)}]"]
            lines += [f"{_name(inner)} = {_value(value)}" for inner, value in table.items()]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield f"# {plain(line)}".rstrip()


def _name(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _value(value: object) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_name(k)} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        parts = [_value(part) for part in value]
        line = f"[{', '.join(parts)}]"
        return line if len(line) < WIDTH else "[\n" + "".join(f"    {p},\n" for p in parts) + "]"
    return repr(value) if isinstance(value, float) else json.dumps(value)


def _text(text: str) -> str:
    """A basic string: TOML's escapes are JSON's, and it wants one more."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
