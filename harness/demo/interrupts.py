"""What Ctrl-C and SIGTERM do: they interrupt, or are held back until all can be ended."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["ignore_interrupts", "interruptible", "interrupts"]

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class _Interrupts:
    """Handles SIGINT and SIGTERM: raises KeyboardInterrupt, or does so a little later."""

    def __init__(self) -> None:
        self._held = False
        self._asked = False

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        """The handler."""
        self._asked = True
        if not self._held:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def later(self) -> Iterator[None]:
        """Hold the interrupt back until the end of the block."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._asked:
            raise KeyboardInterrupt


interrupts: Final = _Interrupts()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT and SIGTERM interrupt; afterwards both mean again what they meant before."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, interrupts)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_interrupts() -> None:
    """Let neither of them do anything."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
