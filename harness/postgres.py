"""A real PostgreSQL on this machine, whose changes can be followed.

It is no part of `make install`: the system's package is used (`postgresql` on Debian and Ubuntu),
wherever its programs are.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import orjson

from harness.process import HOST, Child, HarnessError, free_port, tail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Postgres", "programs"]

USER: Final = "postgres"
START_S: Final = 60.0
STOP_S: Final = 20.0

_PLACES: Final = "/usr/lib/postgresql"
"""Where Debian has its versions, none of them on the PATH."""

_OPTIONS: Final[Mapping[str, str]] = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "wal_level": "logical",
    "max_connections": "20",
    "shared_buffers": "32MB",
    "fsync": "off",  # a process that is killed leaves its writes with the kernel
}


@cache
def programs() -> Path | None:
    """The folder of PostgreSQL's programs; None where there is none."""
    found = shutil.which("postgres")
    if found is not None:
        return Path(found).resolve().parent
    versions = sorted(Path(_PLACES).glob("*/bin/postgres"), key=_version)
    return versions[-1].parent if versions else None


class Postgres:
    """A server with an empty database; as a context manager it is started and stopped.

    Whoever comes by the loopback address may do everything. Where this process is root's, which
    PostgreSQL refuses, the server is the user `postgres`'.
    """

    def __init__(self) -> None:
        self.port = free_port()
        # Not below a folder of pytest's, which only its owner may enter.
        self._folder = Path(tempfile.mkdtemp(prefix="headrace-postgres-"))
        self._child: Child | None = None

    @property
    def settings(self) -> dict[str, str]:
        """How Debezium's connector reaches it."""
        return {
            "database.hostname": HOST,
            "database.port": str(self.port),
            "database.user": USER,
            "database.password": "none",  # is asked for
            "database.dbname": USER,
        }

    def start(self) -> Self:
        """Make a database and start the server.

        Raises:
            HarnessError: A program is missing, or it does not answer in time.
        """
        data = self._folder / "data"
        if os.geteuid() == 0:
            os.chown(self._folder, *_owner())
        log = self._folder / "server.log"
        made = ["-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale", "-N"]
        with Child(self._command("initdb", *made), log=log, folder=self._folder) as child:
            if child.wait(START_S) != 0:
                raise HarnessError(f"postgres: no database: {tail(log, 3)}")
        options = [part for name, value in _OPTIONS.items() for part in ("-c", f"{name}={value}")]
        command = self._command("postgres", "-D", str(data), "-p", str(self.port), *options)
        self._child = Child(command, log=log, folder=self._folder)
        deadline = time.monotonic() + START_S
        while self._psql("SELECT 1").returncode:
            if time.monotonic() > deadline or not self._child.alive:
                raise HarnessError(f"postgres: does not answer: {tail(log, 3)}")
            time.sleep(0.1)
        return self

    def stop(self) -> None:
        """End it and remove its data."""
        if self._child is not None:
            self._child.send(signal.SIGINT)  # does not wait for its clients, as SIGTERM would
            self._child.wait_or_kill(STOP_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, *statements: str) -> None:
        """Run statements, each in a transaction of its own.

        Raises:
            HarnessError: One fails.
        """
        self._checked(";\n".join(statements) + ";")

    def rows(self, query: str) -> list[dict[str, Any]]:
        """What a query finds.

        Raises:
            HarnessError: It fails.
        """
        wrapped = f"SELECT row_to_json(found) FROM ({query}) AS found;"  # noqa: S608 - our own
        found = self._checked(wrapped)
        return [orjson.loads(line) for line in found.splitlines()]

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _checked(self, script: str) -> str:
        done = self._psql(script)
        if done.returncode:
            raise HarnessError(f"postgres: {done.stderr.strip()}")
        return done.stdout

    def _psql(self, script: str) -> subprocess.CompletedProcess[str]:
        told = ["-h", HOST, "-p", str(self.port), "-U", USER, "-d", USER]
        quiet = ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"]
        return subprocess.run(
            [_program("psql"), *told, *quiet, "--set", "ON_ERROR_STOP=1", "--file", "-"],
            input=script,
            capture_output=True,
            text=True,
            check=False,
        )

    def _command(self, name: str, *words: str) -> Sequence[str]:
        """One of its programs, run by a user that it lets."""
        if os.geteuid() != 0:
            return [_program(name), *words]
        # The promise to end a child with its parent ends where the user changes.
        user, group = _owner()
        changed = [f"--reuid={user}", f"--regid={group}", "--clear-groups", "--pdeathsig=KILL"]
        return ["setpriv", *changed, _program(name), *words]


def _version(path: Path) -> float:
    return float(path.parts[-3])


def _program(name: str) -> str:
    folder = programs()
    if folder is None:
        raise HarnessError("postgres: not found on PATH; install your system's PostgreSQL")
    return str(folder / name)


def _owner() -> tuple[int, int]:
    """The user and the group that the server runs as where we are root."""
    try:
        found = pwd.getpwnam(USER)
    except KeyError:
        raise HarnessError(f"postgres: root can't run it, and there is no user {USER}") from None
    return found.pw_uid, found.pw_gid
