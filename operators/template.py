"""Templates: words, and between them pointers to what is to stand there."""

from __future__ import annotations

import re
from typing import Final

from headrace.errors import UsageError
from operators.pointer import Pointer

__all__ = ["template_parts"]

_PART: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")


def template_parts(template: str, setting: str) -> list[str | Pointer]:
    """A template's own words, and the pointers between them.

    Args:
        template: Such as `{/title}. {/body}`; a doubled brace means itself.
        setting: Which setting it is, for errors.

    Raises:
        UsageError: A brace stands alone, or it has no pointer.
    """
    parts: list[str | Pointer] = []
    for found in _PART.finditer(template):
        part = found.group()
        if part in ("{", "}"):
            raise UsageError(
                f"{setting}: {template!r}: a brace stands alone; double it to mean itself"
            )
        if found.group(1) is not None:
            parts.append(Pointer(found.group(1), setting))
        else:
            parts.append(part[0] if part in ("{{", "}}") else part)
    if not any(isinstance(part, Pointer) for part in parts):
        raise UsageError(f"{setting}: {template!r}: names no place in a record, as {{/title}} does")
    return parts
