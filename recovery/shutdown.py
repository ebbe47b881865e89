"""SIGTERM and SIGINT end a flow as the end of its input would: everything read is committed.

Bytewax itself stops at once on a signal and leaves the rest to the next start. A flag that the
sources look at makes them end instead, so windows close, sinks drain and a snapshot is written.
"""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING, Final

from recovery.watchdog import end_process

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["Shutdown"]

LOOK_S: Final = 0.1
"""How often a wait looks whether it is to end, in seconds."""


class Shutdown:
    """Whether the flow has been asked to end.

    Args:
        told: Called when it is; must be quick, since a signal's handler calls it.
    """

    def __init__(self, told: Callable[[], None] | None = None) -> None:
        self._asked = threading.Event()
        self._told = told

    @property
    def asked(self) -> bool:
        """Whether a source should end."""
        return self._asked.is_set()

    def ask(self) -> None:
        """Ask the sources to end."""
        self._asked.set()
        if self._told is not None:
            self._told()

    def wait(self, seconds: float, what: str) -> None:
        """Wait for what is away, in the midst of a step; end the process when that is asked for.

        Nothing is lost: the next start goes on with the record that the step has in hand.

        Args:
            seconds: How long.
            what: What is away, for a person.
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.asked:
                end_process(f"headrace: asked to end while {what} is away; ends at once", 0)
            # Not by waiting for the event: a signal's handler sets it, maybe in this very thread.
            time.sleep(min(left, LOOK_S))

    def on_signals(self) -> None:
        """Let SIGTERM and SIGINT ask; a second one ends the process as it always does."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.ask()
        signal.signal(number, signal.SIG_DFL)
