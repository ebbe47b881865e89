"""Real texts that every machine has: the docstrings of installed Python code."""

from __future__ import annotations

import ast
import sys
import sysconfig
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Docstring", "docstrings"]

LIBRARY: Final = Path(sysconfig.get_path("stdlib"))
PACKAGES: Final = Path(sysconfig.get_path("purelib"))

_SKIPPED: Final = frozenset({"test", "tests", "idlelib", "lib2to3", "site-packages", "__pycache__"})


@dataclass(frozen=True, slots=True)
class Docstring:
    """A docstring and where it stands.

    Attributes:
        id: The qualified name.
        text: The docstring, its indentation removed.
        package: The top-level package.
        module: The module.
        kind: `module`, `class` or `function`.
    """

    id: str
    text: str
    package: str
    module: str
    kind: str


def docstrings(limit: int | None = None) -> Iterator[Docstring]:
    """The docstrings of the standard library, then those of the installed packages.

    The files are parsed, never imported, and in a fixed order.

    Args:
        limit: How many at most.
    """
    return islice(_all(), limit)


def _all() -> Iterator[Docstring]:
    seen: set[str] = set()
    for root in (LIBRARY, PACKAGES):
        for path in sorted(root.rglob("*.py")):
            if _SKIPPED.isdisjoint(path.relative_to(root).parts):
                for found in _of_file(path, root):
                    if found.id not in seen:
                        seen.add(found.id)
                        yield found


def _of_file(path: Path, root: Path) -> Iterator[Docstring]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return
    parts = path.relative_to(root).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
    yield from _of_node(tree, module, module)


def _of_node(node: ast.AST, name: str, module: str) -> Iterator[Docstring]:
    kinds = {ast.Module: "module", ast.ClassDef: "class"}
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node)
        if text and text.strip():
            kind = kinds.get(type(node), "function")
            yield Docstring(name, text, module.split(".", maxsplit=1)[0], module, kind)
    for child in getattr(node, "body", []):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _of_node(child, f"{name}.{child.name}", module)


if __name__ == "__main__":
    sys.stdout.write(f"{sum(1 for _ in docstrings())} docstrings\n")
