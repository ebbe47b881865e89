"""A job in a thread."""

from __future__ import annotations

import threading

from harness.demo.interrupts import interrupts

__all__ = ["Background"]


class Background:
    """A job in a thread of its own, which looks at `_stopping`.

    The thread must have ended when the program does: librdkafka and Lance don't survive an
    interpreter that is being taken down.
    """

    def __init__(self, name: str) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start it; an interrupt meanwhile comes when it can be stopped."""
        with interrupts.later():
            self._thread.start()

    def stop(self) -> None:
        """Stop it, if it runs."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        raise NotImplementedError
