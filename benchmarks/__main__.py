"""Measures and reports: `python -m benchmarks [--docs N] [--rounds N] [--processes N]`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from benchmarks.machine import Quiet, facts
from benchmarks.plan import Run, Size
from benchmarks.report import document, read, show, write
from benchmarks.subjects import chosen
from harness.process import ROOT
from headrace.errors import HeadraceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType

    from benchmarks.subjects import Rival

__all__ = ["main"]

LATEST: Final = ROOT / "build" / "bench" / "latest.json"
_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints tables, writes JSON and, if told to, the page.

    Returns:
        The exit code.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        given = _parser(os.environ).parse_args(arguments)
        if given.read:
            found = read(given.read)
        else:
            size = _size(given.docs, given.rounds, given.seconds, given.processes)
            found = _measured(size, chosen(given.rivals), given.json)
        show(found)
        if given.write_docs:
            _write_docs(found)
    except HeadraceError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("benchmarks: stopped", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _measured(size: Size, rivals: Sequence[Rival], path: Path) -> dict[str, Any]:
    """Measures, and writes what was found; also when it is stopped on the way."""
    machine, quiet = facts(), Quiet()
    with tempfile.TemporaryDirectory(
        prefix="headrace-bench-", ignore_cleanup_errors=True
    ) as folder:
        run = Run(size, dict(os.environ), Path(folder), rivals)
        try:
            with run:
                run.measure()
        finally:
            found = document(run, machine, quiet.figures()) if run.trials else {}
            if found:
                write(found, path)
                print(f"all figures: {path}", file=sys.stderr)
    return found


def _write_docs(found: Mapping[str, Any]) -> None:
    try:
        from benchmarks.page import write_page  # noqa: PLC0415 - draws, which measuring need not
    except ImportError as error:
        raise UsageError(f"--write-docs: {error}; make install brings it") from error
    for path in write_page(found):
        print(f"written: {path}", file=sys.stderr)


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
        help=f"rounds of all subjects (BENCH_ROUNDS; default: {usual.rounds})",
    )
    parser.add_argument(
        "--seconds",
        default=environ.get("BENCH_SECONDS") or usual.seconds,
        help=f"of each steady load (BENCH_SECONDS; default: {usual.seconds:.0f})",
    )
    parser.add_argument(
        "--processes",
        type=int,
        nargs="+",
        choices=usual.processes,
        default=usual.processes,
        help="numbers of processes of a subject (default: 1 2)",
    )
    parser.add_argument(
        "--rivals",
        default=environ.get("BENCH_RIVALS") or "all",
        help="names with commas between, all or none (BENCH_RIVALS; default: all)",
    )
    parser.add_argument("--json", type=Path, default=LATEST, help="where the figures go")
    parser.add_argument("--read", type=Path, metavar="JSON", help="show these, measure nothing")
    parser.add_argument(
        "--write-docs", action="store_true", help="write tables and plots into docs/benchmarks.md"
    )
    return parser


def _size(
    docs: str | int, rounds: str | int, seconds: str | float, processes: Sequence[int]
) -> Size:
    try:
        size = Size(int(docs), int(rounds), float(seconds), tuple(processes))
    except ValueError as error:
        raise UsageError(f"--docs, --rounds, --seconds: {error}") from error
    if size.docs < 8 or size.rounds < 1 or size.seconds < 1:
        raise UsageError(f"--docs, --rounds, --seconds: {size}: at least 8, 1 and 1")
    return size


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
