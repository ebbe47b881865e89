"""Ends a process that can't go on, so that whoever supervises it starts it anew.

librdkafka's calls can hang past their time-outs when a broker dies (its issues 5456 and 5511), and
a worker that waits for one never sees a signal. So whatever talks to the outside does it inside
`Watchdog.busy`, and one daemon thread ends the process when that takes too long. Ending at once is
safe at any moment: that is what exactly-once means here.

Bytewax asks sources again at a time of the wall clock, so one that is set back holds all of them up
until it is again where it was. That ends the process, too.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

import structlog

from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["EXIT_STALLED", "Watchdog", "before_end", "end_process", "ending", "ending_of"]

EXIT_STALLED: Final = 75
"""The exit code of a process that the watchdog ended: EX_TEMPFAIL of sysexits.h, try again."""

SET_BACK_S: Final = 5.0
"""How far the wall clock may go back at once, in seconds: for as long the flow stands still."""

log = structlog.get_logger(__name__)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


_before_end: Final[list[Callable[[], None]]] = []


def before_end(call: Callable[[], None]) -> None:
    """Have something done before this process ends itself; it must be quick, and never raise."""
    _before_end.append(call)


def end_process(message: str, code: int) -> None:
    """Say why in one line on standard error and end the process at once, without unwinding.

    Unwinding would run through Bytewax's threads, which abort with a trace of their own.
    """
    for call in _before_end:
        call()
    print(message, file=sys.stderr, flush=True)  # noqa: T201 - the one line that a person reads
    os._exit(code)


def ending_of(pipeline: str) -> Callable[[str, int], None]:
    """What ends the process for one of several pipelines: the line says which."""
    if not pipeline:
        return end_process

    def end(message: str, code: int) -> None:
        told = message.removeprefix("headrace: ")
        end_process(f"headrace: pipelines.{pipeline}: {told}", code)

    return end


def ending(
    call: Callable[Arguments, Result], end: Callable[[str, int], None] | None = None
) -> Callable[Arguments, Result]:
    """The call, which ends the process on an error of ours, for calls that Bytewax makes."""

    @wraps(call)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return call(*args, **kwargs)
        except HeadraceError as error:
            (end or end_process)(f"headrace: {error}", error.exit_code)
            raise

    return guarded


class Watchdog:
    """Ends the process when one call takes longer than it may, or the wall clock is set back.

    Args:
        limit_s: How long a call may take, in seconds.
        end: What ends the process; `end_process` unless given.
    """

    def __init__(
        self, limit_s: float = 30.0, end: Callable[[str, int], None] | None = None
    ) -> None:
        self._end = end
        self._limit = limit_s
        self._lock = threading.Lock()
        self._busy: dict[int, tuple[str, float]] = {}
        self._next = 0
        self._wall_ahead = time.time() - time.monotonic()
        self._thread: threading.Thread | None = None

    @property
    def end(self) -> Callable[[str, int], None]:
        """What ends the process."""
        return self._end or end_process

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Watch a call that must not take longer than the limit."""
        with self._lock:
            self._start()
            token = self._next
            self._next += 1
            self._busy[token] = (what, time.monotonic())
        try:
            yield
        finally:
            with self._lock:
                del self._busy[token]

    def ending(self, call: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        """The call, which ends the process on an error of ours."""
        return ending(call, self.end)

    def _start(self) -> None:
        # Started with the first call: a thread made at import would not survive a fork.
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        while True:
            time.sleep(min(1.0, self._limit / 4))
            self.check(time.monotonic())
            self.check_clock(time.monotonic(), time.time())

    def check(self, now: float) -> None:
        """End the process if a call that is still under way has taken too long."""
        with self._lock:
            late = [what for what, since in self._busy.values() if now - since > self._limit]
        if late:
            log.error("stalled", stage=late[0], limit_s=self._limit)
            self._give_up(f"{late[0]} made no progress for {self._limit:.0f} s")

    def check_clock(self, now: float, wall: float) -> None:
        """End the process if the wall clock has been set back since the last look.

        Args:
            now: Seconds of a clock that nobody sets.
            wall: Seconds of the wall clock, at the same time.
        """
        back_s, self._wall_ahead = self._wall_ahead - (wall - now), wall - now
        if back_s > SET_BACK_S:
            log.error("clock set back", stage="flow", back_s=round(back_s))
            self._give_up(
                f"the clock of this machine was set back by {back_s:.0f} s, for which Bytewax "
                "would wait"
            )

    def _give_up(self, why: str) -> None:
        self.end(
            f"headrace: {why}; exit {EXIT_STALLED}, start again to go on",
            EXIT_STALLED,
        )
