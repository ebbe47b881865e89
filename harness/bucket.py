"""An S3-compatible object store on this machine: Versity's gateway on a folder.

It is no part of `make install`, since it is built by Go:
`go install github.com/versity/versitygw/cmd/versitygw@latest`.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
from typing import TYPE_CHECKING, Final, Self

from harness.process import HOST, Child, HarnessError, bare_environment, free_port, tail

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Bucket"]

NAME: Final = "vectors"
START_S: Final = 20.0
_KEY: Final = "harness"
_SECRET: Final = "only-on-loopback"  # noqa: S105 - of a server that lives as long as a run


class Bucket:
    """One bucket and its server, which can be killed, paused, and started again on its data.

    As a context manager it is started on entry, killed on exit.

    Args:
        folder: Where data and log go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._child: Child | None = None

    @property
    def uri(self) -> str:
        """For `table.uri`."""
        return f"s3://{NAME}/tables"

    @property
    def environment(self) -> dict[str, str]:
        """What Lance has to know."""
        return {
            "AWS_ENDPOINT": f"http://{HOST}:{self._port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> Self:
        """Start it and wait until it listens.

        Raises:
            HarnessError: The program is missing, or it does not listen in time.
        """
        program = shutil.which("versitygw")
        if program is None:
            raise HarnessError("versitygw: not found on PATH; see harness/bucket.py")
        data, side = self._folder / "data", self._folder / "side"
        (data / NAME).mkdir(parents=True, exist_ok=True)
        side.mkdir(exist_ok=True)
        self._child = Child(
            [program, "--port", f"{HOST}:{self._port}", "posix", "--sidecar", side, data],
            log=self._folder / "server.log",
            environment={
                **bare_environment(),
                "ROOT_ACCESS_KEY": _KEY,
                "ROOT_SECRET_KEY": _SECRET,
            },
        )
        self._await_port(self._child)
        return self

    def kill(self) -> None:
        """End it by -9."""
        self._running().kill()

    def pause(self) -> None:
        """Make it hang, with all its connections open, until `resume`."""
        self._running().pause()

    def resume(self) -> None:
        """Let it go on."""
        self._running().resume()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _running(self) -> Child:
        if self._child is None:
            raise HarnessError("bucket: not started")
        return self._child

    def _await_port(self, child: Child) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and child.alive:
            with (
                contextlib.suppress(OSError),
                socket.create_connection((HOST, self._port), timeout=1),
            ):
                return
            time.sleep(0.05)
        raise HarnessError(f"bucket: does not listen: {tail(child.log, 3)}")
