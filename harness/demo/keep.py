"""The demo kept open: flow and services run on, and documents trickle in, until it is stopped."""

from __future__ import annotations

import time
import urllib.request
from typing import TYPE_CHECKING, Final

from harness.process import Child, HarnessError, bare_environment, tail

if TYPE_CHECKING:
    from harness.broker import Broker
    from harness.demo.commands import Commands
    from harness.demo.place import Place
    from harness.demo.shown import Screen
    from harness.demo.writer import Writer
    from harness.flow import Flow

__all__ = ["RATE", "keep_open"]

RATE: Final = 5.0
"""Documents a second that are written again meanwhile."""

START_S: Final = 120.0


def keep_open(
    screen: Screen, place: Place, commands: Commands, broker: Broker, flow: Flow, writer: Writer
) -> None:
    """Serve the page until something ends, or Ctrl-C.

    Raises:
        HarnessError: Something has ended by itself.
    """
    screen.command(*commands.flow)
    flow.start()
    screen.command(*commands.serve)
    environment = bare_environment() | commands.settings
    log = place.folder / "serve.log"
    with Child(commands.started(commands.serve), log=log, environment=environment) as server:
        _await(f"{place.page}/health/ready", server)
        writer.start()
        screen.say(
            f"The page is on {place.page}/ . The documents are written again, {RATE:.0f} a second. "
            "Ctrl-C ends it.",
            style="bold",
        )
        while server.alive and broker.alive and flow.alive:
            writer.check()
            time.sleep(0.2)
    raise HarnessError(f"demo: kept open, and something has ended; see {place.shown()}")


def _await(url: str, server: Child) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.alive:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own
                return
        except OSError:
            time.sleep(0.2)
    raise HarnessError(f"headrace serve: did not come up: {tail(server.log, 1)}")
