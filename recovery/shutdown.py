"""SIGTERM and SIGINT end a flow as the end of its input would: everything read is committed.

Bytewax itself stops at once on a signal and leaves the rest to the next start. A flag that the
sources look at makes them end instead, so windows close, sinks drain and a snapshot is written.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["Shutdown"]


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

    def on_signals(self) -> None:
        """Let SIGTERM and SIGINT ask; a second one ends the process as it always does."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.ask()
        signal.signal(number, signal.SIG_DFL)
