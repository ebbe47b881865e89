"""Measures and reports: `python -m benchmarks [--docs N] [--rounds N] [--seconds S]`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from benchmarks.machine import Quiet, facts
from benchmarks.plan import Run, Size
from benchmarks.report import document, show, write
from harness.process import ROOT
from headrace.errors import HeadraceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType

__all__ = ["main"]

LATEST: Final = ROOT / "build" / "bench" / "latest.json"
_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints tables, writes JSON.

    Returns:
        The exit code.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        given = _parser(os.environ).parse_args(arguments)
        _measure(_size(given.docs, given.rounds, given.seconds), given.json)
    except HeadraceError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("benchmarks: stopped", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _measure(size: Size, path: Path) -> None:
    machine, quiet = facts(), Quiet()
    with (
        tempfile.TemporaryDirectory(prefix="headrace-bench-", ignore_cleanup_errors=True) as folder,
        Run(size, dict(os.environ), Path(folder)) as run,
    ):
        run.measure()
    disturbed = quiet.figures()
    show(run, machine, disturbed)
    write(document(run, machine, disturbed), path)
    print(f"all figures: {path}", file=sys.stderr)


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    usual = Size()
    parser.add_argument(
        "--docs",
        default=environ.get("BENCH_DOCS") or usual.docs,
        help=f"short texts of a backlog (BENCH_DOCS; default: {usual.docs})",
    )
    parser.add_argument(
        "--rounds",
        default=environ.get("BENCH_ROUNDS") or usual.rounds,
        help=f"rounds of controls and flows (BENCH_ROUNDS; default: {usual.rounds})",
    )
    parser.add_argument(
        "--seconds",
        default=environ.get("BENCH_SECONDS") or usual.seconds,
        help=f"of each steady load (BENCH_SECONDS; default: {usual.seconds:.0f})",
    )
    parser.add_argument("--json", type=Path, default=LATEST, help="where the figures go")
    return parser


def _size(docs: str | int, rounds: str | int, seconds: str | float) -> Size:
    try:
        size = Size(int(docs), int(rounds), float(seconds))
    except ValueError as error:
        raise UsageError(f"--docs, --rounds, --seconds: {error}") from error
    if size.docs < 8 or size.rounds < 1 or size.seconds < 1:
        raise UsageError(f"--docs, --rounds, --seconds: {size}: at least 8, 1 and 1")
    return size


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
