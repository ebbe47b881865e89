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


def test_a_wait_ends_with_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that waits for what is away ends the process once that is asked for."""
    ended: list[tuple[str, int]] = []

    class EndedError(Exception):
        """The process has ended."""

    def end(message: str, code: int) -> None:
        ended.append((message, code))
        raise EndedError

    monkeypatch.setattr("recovery.shutdown.end_process", end)
    shutdown = Shutdown()
    shutdown.wait(0.0, "the moon")
    shutdown.wait(0.2, "the moon")
    assert not ended
    shutdown.ask()
    with pytest.raises(EndedError):
        shutdown.wait(60.0, "the moon")
    assert ended == [("headrace: asked to end while the moon is away; ends at once", 0)]
