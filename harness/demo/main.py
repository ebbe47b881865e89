"""Arguments and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.demo.interrupts import interruptible
from harness.demo.place import Place
from harness.demo.run import Demo
from harness.demo.shown import Screen
from harness.process import ROOT
from headrace.errors import HeadraceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

DOCUMENTS: Final = 2500
"""Enough to see it work, and few enough that two cores answer the first search within a minute."""

LEAST_DOCUMENTS: Final = 20
INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo.

    Returns:
        The exit code: 0 nothing lost or doubled, 1 failed, 2 wrong usage, 130 interrupted.
    """
    parser = argparse.ArgumentParser(prog="python -m harness.demo", description="Shows Headrace.")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "demo", help="where it works")
    given = parser.parse_args(arguments)
    with interruptible():
        return _run(Screen(), given.data)


def _run(screen: Screen, data: Path) -> int:
    try:
        size = _size(os.environ.get("DEMO_DOCS", str(DOCUMENTS)))
        kept = os.environ.get("DEMO_KEEP", "") not in {"", "0"}
        with Demo(screen, Place.at(data), size, kept=kept) as demo:
            return 0 if demo.run() else 1
    except HeadraceError as error:
        sys.stderr.write(f"demo: {' '.join(str(error).split())}\n")
        return error.exit_code
    except KeyboardInterrupt:
        screen.say("\nStopped; nothing is left running.")
        return INTERRUPTED


def _size(given: str) -> int:
    with contextlib.suppress(ValueError):
        if int(given) >= LEAST_DOCUMENTS:
            return int(given)
    raise UsageError(f"DEMO_DOCS: {given!r}: must be a whole number from {LEAST_DOCUMENTS} on")
