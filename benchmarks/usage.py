"""What processes use: CPU time, by process and by thread, and memory at its peak."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["cpu_of", "growth", "peak_mib", "threads_of"]

_PEAK: Final = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
_NUMBERED: Final = re.compile(r"[-:_]?\d+(/\d+)?$")


def cpu_of(pids: Iterable[int]) -> float:
    """CPU-seconds of processes and of their children, ended ones that they waited for included."""
    total = 0.0
    for one in _trees(pids):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def peak_mib(pids: Iterable[int]) -> float:
    """The most memory that one process held at any time, with its children, in MiB.

    On Linux the kernel's own record of resident memory; elsewhere what is held now.
    """
    return max((sum(map(_peak_of, _trees([pid]))) for pid in pids), default=0.0) / 2**20


def threads_of(pids: Iterable[int]) -> dict[str, float]:
    """CPU-seconds of the living threads of processes and their children, by the threads' names.

    A process's first thread is `main`. Empty where the system does not tell.
    """
    found: defaultdict[str, float] = defaultdict(float)
    for one in _trees(pids):
        with contextlib.suppress(psutil.Error):
            for thread in one.threads():
                found[_name_of(one.pid, thread.id)] += thread.user_time + thread.system_time
    found.pop("", None)
    return dict(found)


def growth(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """By how much each number has grown; what has not is left out."""
    grown = {name: number - before.get(name, 0.0) for name, number in after.items()}
    return {name: number for name, number in grown.items() if number > 0}


def _trees(pids: Iterable[int]) -> Iterator[psutil.Process]:
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            yield process
            yield from process.children(recursive=True)


def _peak_of(process: psutil.Process) -> int:
    """Bytes."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        if peak := _PEAK.search(status):
            return int(peak[1]) * 1024
    with contextlib.suppress(psutil.Error):
        resident: int = process.memory_info().rss
        return resident
    return 0


def _name_of(pid: int, thread: int) -> str:
    """A thread's name, without its number; empty if there is none or it has ended."""
    if thread == pid:
        return "main"
    try:
        name = Path(f"/proc/{pid}/task/{thread}/comm").read_text(encoding="utf-8")
    except OSError:
        return ""
    return _NUMBERED.sub("", name.strip())
