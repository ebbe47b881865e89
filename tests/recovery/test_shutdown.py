from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from recovery.shutdown import Shutdown

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def shutdown() -> Iterator[Shutdown]:
    """One that listens to signals while a test runs."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    asked = Shutdown()
    asked.on_signals()
    yield asked
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks(shutdown: Shutdown, number: signal.Signals) -> None:
    """The first signal asks the sources to end; a second one would end the process as always."""
    os.kill(os.getpid(), number)
    assert shutdown.asked
    assert signal.getsignal(number) is signal.SIG_DFL
    other = signal.SIGINT if number is signal.SIGTERM else signal.SIGTERM
    assert signal.getsignal(other) is not signal.SIG_DFL


def test_asking_without_a_signal() -> None:
    """Code can ask too, any number of times."""
    shutdown = Shutdown()
    before = shutdown.asked
    shutdown.ask()
    shutdown.ask()
    assert (before, shutdown.asked) == (False, True)


def test_somebody_is_told() -> None:
    """Whoever wants to know of it is told, with the first request already."""
    told: list[bool] = []
    shutdown = Shutdown(lambda: told.append(True))
    assert told == []
    shutdown.ask()
    assert told
