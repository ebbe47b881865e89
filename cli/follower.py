"""A flow that a command runs beside itself, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from cli.errors import CommandError
from flows.settings.pipelines import variable_of
from sinks.errors import SECOND_COPY

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Follower", "variables"]

REFUSED: Final = frozenset({1, 2})
"""The exit codes of a flow that would end the same if it was started again."""

END_S: Final = 30.0
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
TAIL_BYTES: Final = 65_536

_ROOT: Final = Path(__file__).resolve().parent.parent


def variables(changed: Mapping[str, str | int], pipeline: str = "") -> dict[str, str]:
    """The environment variables of some settings, of one pipeline where there are several."""
    own = f"PIPELINES__{variable_of(pipeline)}__" if pipeline else ""
    return {
        f"HEADRACE_{own}" + name.upper().replace(".", "__"): str(value)
        for name, value in changed.items()
    }


class Follower:
    """`flows.embed` with some settings changed, started again when it crashes.

    As a context manager it is started on entry, and on exit asked to commit and end. Should this
    process be killed, the flow works on until the next one fences it.

    Args:
        changed: Environment variables beside this process's own.
    """

    def __init__(self, changed: Mapping[str, str]) -> None:
        self._changed = changed
        self._pause_s = FIRST_PAUSE_S
        self._started = 0.0
        handle, name = tempfile.mkstemp(prefix="headrace-migrate-", suffix=".log")
        os.close(handle)
        self.log = Path(name)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        with suppress(OSError):
            self.log.unlink()

    def look(self) -> bool:
        """See that it runs, and start it again if it has crashed.

        Returns:
            Whether it runs; not where another copy of it has taken over.

        Raises:
            CommandError: It refuses to run.
        """
        assert self._process is not None
        code = self._process.poll()
        if code is None:
            return True
        line = self._last_line()
        if SECOND_COPY in line:
            return False
        if code in REFUSED:
            raise CommandError(line or f"flows.embed: ended with exit code {code}; see its log")
        if time.monotonic() - self._started > LONGEST_PAUSE_S:
            self._pause_s = FIRST_PAUSE_S
        time.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._start()
        return True

    def _start(self) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("BYTEWAX_")}
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._started = time.monotonic()
        with self.log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bytewax.run", "flows.embed", "-s", "10"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**kept, **self._changed, "PYTHONPATH": os.pathsep.join(paths)},
                # Ctrl-C reaches this process alone, which asks the flow to end in good order.
                start_new_session=True,
            )

    def _last_line(self) -> str:
        """The last line that it has for a person."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        found = [line for line in lines if line.startswith("headrace: ")]
        return found[-1].removeprefix("headrace: ") if found else ""
