"""What a user would type, run as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness import tether
from harness.process import ROOT, HarnessError, bare_environment

if TYPE_CHECKING:
    from harness.demo.place import Place
    from harness.demo.shown import Screen

__all__ = ["WORKERS", "Commands"]

WORKERS: Final = 2


class Commands:
    """The commands of one demo.

    Args:
        screen: Where those that are run are shown.
        place: What they work on.
    """

    def __init__(self, screen: Screen, place: Place) -> None:
        self._screen = screen
        self._place = place

    @property
    def settings(self) -> dict[str, str]:
        """The settings of all that runs: the demo's, and the user's of the model alone."""
        kept = {k: v for k, v in os.environ.items() if k.startswith("HEADRACE_MODEL__")}
        return {**kept, "HEADRACE_CONFIG": str(self._place.config)}

    @property
    def broker(self) -> tuple[str, ...]:
        """What starts the broker."""
        port = str(self._place.kafka_port)
        folder = ("--folder", self._place.shown("kafka"))
        return ("python", "-m", "harness.broker", "--port", port, *folder)

    @property
    def flow(self) -> tuple[str, ...]:
        """What starts the flow."""
        store = ("-s", "10", "-r", self._place.shown("recovery"), "-b", "0")
        return ("python", "-m", "bytewax.run", "flows.embed", "-w", str(WORKERS), *store)

    @property
    def serve(self) -> tuple[str, ...]:
        """What starts the services and the page."""
        return ("headrace", "serve", "--port", str(self._place.http_port))

    @staticmethod
    def started(command: tuple[str, ...]) -> tuple[str, ...]:
        """A command of `headrace` as it is started: the one of this environment."""
        return (str(Path(sys.executable).with_name(command[0])), *command[1:])

    def headrace(self, *arguments: str, quiet: bool = False) -> str:
        """Run `headrace` as a user does; returns what it printed if that is not to be shown.

        It has a session of its own, so that Ctrl-C reaches the demo alone, which ends it.

        Raises:
            HarnessError: It failed; it has said why.
        """
        self._screen.command("headrace", *arguments)
        tied = (sys.executable, "-I", "-S", tether.__file__, str(os.getpid()))
        process = subprocess.Popen(
            (*tied, *self.started(("headrace", *arguments))),
            cwd=ROOT,
            env=bare_environment() | self.settings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if quiet else None,
            text=True,
            start_new_session=True,
        )
        try:
            printed, _ = process.communicate()
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            name = " ".join(("headrace", *arguments[:2]))
            raise HarnessError(f"{name}: ended with exit code {process.returncode}")
        return printed or ""
