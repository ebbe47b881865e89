from __future__ import annotations

import re
from importlib import import_module
from pkgutil import iter_modules

import pytest

from headrace import errors
from headrace.errors import HeadraceError, UsageError
from recovery.watchdog import EXIT_STALLED

TREE = re.findall(r"[├└]── ([\w.]+)", errors.__doc__ or "")
PACKAGES = ("clients", "operators.model", "recovery", "sinks", "sources")


def find(name: str) -> type[HeadraceError]:
    """The class that the tree names."""
    package, _, own = name.rpartition(".")
    root = import_module(package or "headrace")
    modules = [
        import_module(f"{root.__name__}.{m.name}")
        for m in iter_modules(root.__path__)
        if m.name in {"errors", "process"}
    ]
    [found] = {getattr(module, own) for module in modules if hasattr(module, own)}
    assert issubclass(found, HeadraceError)
    assert isinstance(found, type)
    return found


@pytest.mark.parametrize("name", TREE)
def test_the_tree_names_what_there_is(name: str) -> None:
    """Every class in the documented tree exists where the tree says, and is one of ours."""
    find(name)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_packages_error_is_in_the_tree(package: str) -> None:
    """A package's errors stand in the documented tree, or under one that does."""
    own = {
        value
        for value in vars(import_module(f"{package}.errors")).values()
        if isinstance(value, type) and value.__module__ == f"{package}.errors"
    }
    listed = tuple(find(name) for name in TREE if "." in name)
    assert [error for error in own if not issubclass(error, listed)] == []


def test_exit_codes() -> None:
    """1 for a job that failed, 2 for wrong usage, and 75 where starting again is the way out."""
    assert (HeadraceError.exit_code, UsageError.exit_code) == (1, 2)
    codes = {name: find(name).exit_code for name in TREE if "." in name}
    assert codes.pop("sinks.WriterLostError") == EXIT_STALLED == 75
    assert codes.pop("sinks.FilterError") == UsageError.exit_code
    assert set(codes.values()) == {1}
