"""Parts of JMESPath expressions."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["member", "raw"]

_BARE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def member(path: Sequence[str]) -> str:
    """The field that some names lead to."""
    return ".".join(name if _BARE.fullmatch(name) else json.dumps(name) for name in path)


def raw(text: str) -> str:
    """A text, as a literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
