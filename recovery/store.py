"""Bytewax's recovery store: whether it is there, and whether it is this flow's.

Bytewax keeps snapshots in a folder of SQLite files. They are pickles, and reading one runs what it
says: so nobody but root may be able to write there beside the flow's own user.

A flow with other lanes or another model must not go on from them: Bytewax panics over a lane that
is gone, and state of another model would be mixed in. So a file beside the snapshots says whose
they are.
"""

from __future__ import annotations

import argparse
import json
import os
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from recovery.errors import RecoveryError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Launch", "StoreIdentity", "check_store"]

IDENTITY_FILE: Final = "headrace.json"
IDENTITY_VERSION: Final = 1

PARTITIONS: Final = 4
"""The number of partitions that the errors' commands suggest; it is fixed for the store's life, so
it should be the most workers ever wanted."""


@dataclass(frozen=True)
class Launch:
    """What of Bytewax's command line a flow must know.

    Attributes:
        process: The number of this process in its cluster.
        recovery: The recovery folder; None without recovery.
        cluster: Whether there are other processes.
        workers: How many workers this one has.
    """

    process: int = 0
    recovery: Path | None = None
    cluster: bool = False
    workers: int = 1

    @classmethod
    def parse(cls, argv: Sequence[str], environ: Mapping[str, str]) -> Launch:
        """What `python -m bytewax.run` was told; nothing when it is not what runs.

        Args:
            argv: The program's arguments, its own name first.
            environ: The environment, which Bytewax takes its options from too.
        """
        if Path(argv[0]).parts[-2:] != ("bytewax", "run.py"):
            return cls()
        parser = argparse.ArgumentParser(add_help=False)
        parser.add_argument("-i", "--process-id", default=environ.get("BYTEWAX_PROCESS_ID"))
        parser.add_argument(
            "-r", "--recovery-directory", default=environ.get("BYTEWAX_RECOVERY_DIRECTORY")
        )
        parser.add_argument(
            "-w",
            "--workers-per-process",
            default=environ.get("BYTEWAX_WORKERS_PER_PROCESS"),
        )
        known, _ = parser.parse_known_args(argv[1:])
        process = known.process_id or _pod_number(environ)
        recovery = known.recovery_directory
        workers = int(known.workers_per_process or 1)
        folder = Path(recovery) if recovery else None
        return cls(int(process or 0), folder, bool(process), workers)


def _pod_number(environ: Mapping[str, str]) -> str:
    """The process number that a pod's name ends with, as Bytewax reads it."""
    pod, name = environ.get("BYTEWAX_POD_NAME", ""), environ.get("BYTEWAX_STATEFULSET_NAME", "")
    return pod.removeprefix(f"{name}-") if pod and name else ""


@dataclass(frozen=True)
class StoreIdentity:
    """Whose snapshots a store holds.

    Attributes:
        lanes: The keys of the lanes.
        model: The model's name.
        fingerprint: The model's fingerprint.
        version: Of this layout.
    """

    lanes: tuple[str, ...]
    model: str
    fingerprint: str
    version: int = IDENTITY_VERSION

    def json(self) -> str:
        """The identity as JSON."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def parse(cls, text: str) -> StoreIdentity:
        """The identity that JSON holds."""
        fields = json.loads(text)
        if fields["version"] != IDENTITY_VERSION:
            raise ValueError(f"version {fields['version']} is not {IDENTITY_VERSION}")
        return cls(**(fields | {"lanes": tuple(fields["lanes"])}))


def check_store(folder: Path, flow: StoreIdentity, pipeline: str = "") -> None:
    """Check that a folder is an initialised store, private, and this flow's.

    One that is nobody's yet is claimed for this flow.

    Args:
        folder: The folder.
        flow: What runs.
        pipeline: Which of several pipelines that share the store it is.

    Raises:
        RecoveryError: It is not; the text has the command that mends it. Making a store anew is
            always safe: progress is kept with the outputs, not here.
    """
    make = f"mkdir -p -m 700 {folder} && python -m bytewax.recovery {folder} {PARTITIONS}"
    if not folder.is_dir() or not any(folder.glob("part-*.sqlite3")):
        raise RecoveryError(f"-r {folder}: no recovery store is there; make one: {make}")
    _see_private(folder)
    anew = f"make it anew: rm -r {folder} && {make}"
    path = folder / (f"headrace-{pipeline}.json" if pipeline else IDENTITY_FILE)
    held = _read(path, anew)
    if held is not None:
        _compare(folder, held, flow, anew)
    _write(path, flow)


def _see_private(folder: Path) -> None:
    """Check that nobody but root and the user of this process can change what is unpickled."""
    if os.name != "posix":
        return
    entered = _see_own(folder, folder, stat.S_IWGRP | stat.S_IWOTH)
    # Who can't enter the folder can't write its files either, whatever their own rights say.
    strangers = (entered & (stat.S_IXGRP | stat.S_IXOTH)) << 1
    for path in sorted(folder.glob("part-*")):
        with suppress(FileNotFoundError):  # SQLite's own beside a store come and go
            _see_own(path, folder, strangers)


def _see_own(path: Path, folder: Path, strangers: int) -> int:
    """Check that a path is this user's or root's, and that strangers can't write it.

    Args:
        path: What to look at.
        folder: The recovery folder, for the error.
        strangers: The bits of those that must not be able to write it.

    Returns:
        Its mode.
    """
    held = path.stat()
    if held.st_uid not in {0, os.geteuid()}:
        raise RecoveryError(
            f"-r {folder}: {path} belongs to user {held.st_uid}, who could have the flow run "
            f"anything; make it yours: chown -R {os.geteuid()} {folder}"
        )
    if held.st_mode & strangers:
        raise RecoveryError(
            f"-r {folder}: {path} can be written by others, who could have the flow run anything; "
            f"make it private: chmod -R go-w {folder}"
        )
    return held.st_mode


def _read(path: Path, anew: str) -> StoreIdentity | None:
    if not path.exists():
        return None
    try:
        return StoreIdentity.parse(path.read_text())
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RecoveryError(f"-r {path.parent}: can't read {path.name}: {error}; {anew}") from error


def _compare(folder: Path, held: StoreIdentity, flow: StoreIdentity, anew: str) -> None:
    if held.fingerprint != flow.fingerprint:
        raise RecoveryError(
            f"-r {folder}: holds snapshots of model {held.model} ({held.fingerprint}), model.name "
            f"is {flow.model} ({flow.fingerprint}); {anew}"
        )
    gone = sorted(set(held.lanes) - set(flow.lanes))
    if gone:
        raise RecoveryError(
            f"-r {folder}: holds snapshots of {', '.join(gone)}, which source.topics no longer "
            f"has; {anew}"
        )


def _write(path: Path, identity: StoreIdentity) -> None:
    # Renamed into place: several processes of a cluster write it at once, all the same.
    draft = path.with_suffix(f".{os.getpid()}")
    try:
        draft.write_text(identity.json())
        draft.replace(path)
    except OSError as error:
        raise RecoveryError(f"-r {path.parent}: can't be written: {error.strerror}") from error
