"""What can go wrong beside kills: disks that fill, clocks that jump, a table that is gone, a hang.

Scenarios of `harness.soak`, which need more of the machine than the others: each names what it
lacks. None is part of the tests.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.broker import Broker
from harness.bucket import Bucket
from harness.cluster import Cluster
from harness.link import Link
from harness.process import ROOT, HarnessError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.faults import Trial, TrialResult

__all__ = ["bucket", "clock", "coordinator", "disk", "hang", "partition", "table_lost", "upgrade"]

HANG_S: Final = 120.0
DISK_MIB: Final = 48
FULL_S: Final = 20.0
PARTED_S: Final = 90.0
"""Seconds; a transaction may take 60."""

CLOCK_S: Final = 15.0
"""How long the clock is wrong at a time."""

_CLOCK: Final = Path(__file__).with_name("clock.c")


def hang(trial: Trial) -> TrialResult:
    """One of two processes is stopped for two minutes, then goes on; twice."""
    trial.workers, trial.processes = 1, 2
    with trial:
        for process in (0, 1):
            trial.await_progress()
            trial.flow.pause(process)
            trial.note(f"process {process} stopped")
            time.sleep(HANG_S)
            trial.flow.resume(process)
            trial.note(f"process {process} goes on")
        return trial.finish()


def table_lost(trial: Trial) -> TrialResult:
    """The table's folder is removed while the flow writes it; it is built anew from the topic."""
    with trial:
        for _ in range(2):
            trial.await_progress()
            shutil.rmtree(trial.uri)
            trial.note("table folder removed")
        return trial.finish()


def disk(trial: Trial) -> TrialResult:
    """The disk under the table, the recovery store and the log is full for a while, in turn."""
    places = {
        "table": Path(trial.uri),
        "recovery": trial.recovery,
        "log": trial.folder / "logs",
    }
    with _small_disks(list(places.values())), trial:
        for name, place in places.items():
            trial.await_progress()
            before = trial.flow.restarts
            with _full(place):
                trial.note(f"disk of the {name} full")
                time.sleep(FULL_S)
                ends = trial.flow.restarts - before
            trial.note(f"disk of the {name} free again after {ends} restarts")
        return trial.finish()


def clock(trial: Trial) -> TrialResult:
    """The flow's wall clock jumps an hour ahead, back, and an hour behind."""
    library, wrong = trial.folder / "clock.so", trial.folder / "clock"
    _command("cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(_CLOCK), "-ldl")
    wrong.write_bytes(_seconds(0))
    preloaded = {"LD_PRELOAD": str(library), "WRONG_CLOCK": str(wrong)}
    trial.settings = {**trial.settings, **preloaded}
    with trial, wrong.open("r+b", buffering=0) as file:
        for jump in (3600, 0, -3600, 0):
            trial.await_progress()
            file.seek(0)
            file.write(_seconds(jump))
            trial.note(f"clock {jump:+} s")
            time.sleep(CLOCK_S)
        return trial.finish()


def bucket(trial: Trial) -> TrialResult:
    """The table lies in an S3 bucket whose server is killed, stopped, and killed with the flow."""
    with Bucket(trial.folder / "bucket") as server, _environment(server.environment):
        own = {**server.environment, "HEADRACE_RECOVERY__SUSPECTS": str(trial.folder / "suspects")}
        store = replace(trial, uri=server.uri, settings={**trial.settings, **own})
        with store:
            for away_s in (2.0, 10.0, 20.0):
                store.await_progress()
                server.kill()
                time.sleep(away_s)
                server.start()
                store.note(f"object store killed, away {away_s:.0f} s")
                store.await_progress()
                server.pause()
                time.sleep(away_s)
                server.resume()
                store.note(f"object store stopped for {away_s:.0f} s")
                store.kill_at_random()
            return store.finish()


def partition(trial: Trial) -> TrialResult:
    """Flow and broker are cut off from one another for longer than a transaction may take; twice.

    Nothing is closed: the broker aborts the transaction that was open and ends the session, and
    hears of the old process when the network is whole again.
    """
    with Link() as link, Broker(folder=trial.folder / "linked", link=link) as linked:
        servers = {"HEADRACE_KAFKA__BOOTSTRAP_SERVERS": link.address}
        with replace(trial, broker=linked, settings={**trial.settings, **servers}) as own:
            for _ in range(2):
                own.await_progress()
                before = own.flow.restarts
                link.cut()
                time.sleep(PARTED_S)
                ends = own.flow.restarts - before
                link.mend()
                own.note(f"cut off for {PARTED_S:.0f} s, {ends} restarts meanwhile")
            return own.finish()


def coordinator(trial: Trial) -> TrialResult:
    """Of three nodes the one that keeps the flow's offsets is killed, and comes back; six times."""
    with (
        Cluster(trial.folder / "cluster") as cluster,
        replace(trial, broker=cluster) as own,
    ):
        for _ in range(6):
            own.await_progress()
            node = cluster.coordinator(own.name)
            node.kill()
            own.await_progress()
            own.note(f"node {cluster.nodes.index(node) + 1} killed, went on without it")
            node.start()
        return own.finish()


def upgrade(trial: Trial) -> TrialResult:
    """An older commit's flow and this one's take turns, ended by SIGTERM and by -9."""
    older = trial.folder / "older"
    older.mkdir()
    _command("git", "archive", "--output", f"{older}.tar", trial.older)
    _command("tar", "--extract", "--file", f"{older}.tar", "--directory", str(older))
    (older / "build").symlink_to(ROOT / "build")
    with replace(trial, code=older) as own:
        for kill in (False, True):
            own.change_version(ROOT, kill=kill)
            own.change_version(older, kill=kill)
        own.change_version(ROOT)
        return own.finish()


@contextmanager
def _small_disks(places: list[Path]) -> Iterator[None]:
    """File systems of some MiB at those places.

    Raises:
        HarnessError: They can't be mounted.
    """
    mounted: list[Path] = []
    try:
        for place in places:
            place.mkdir(parents=True, exist_ok=True)
            _command("mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(place))
            mounted.append(place)
        yield
    finally:
        for place in mounted:
            _command("umount", "--lazy", str(place))


@contextmanager
def _full(place: Path) -> Iterator[None]:
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 10):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass
    try:
        yield
    finally:
        ballast.unlink()


def _seconds(number: int) -> bytes:
    """What the preloaded clock reads: see `clock.c`."""
    return struct.pack("=q", number)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set them for the audit, which reads the table in this process."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _command(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HarnessError(f"{' '.join(words)}: {done.stderr.strip()}")
