"""Whether a flow moves: what an orchestrator asks, and what the log says of one that is stuck.

`recovery.watchdog` ends a process one of whose calls to the outside hangs. This sees what no single
call shows: there is something to do, and nothing of it reaches the sinks. It ends nothing; whoever
asks decides.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from headrace.errors import HeadraceError
from telemetry.probes import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from recovery.progress import Board
    from recovery.watchdog import Watchdog
    from telemetry.metrics import Metrics
    from telemetry.probes import Probe

__all__ = ["FlowHealth", "together"]

log = structlog.get_logger(__name__)

LOOK_S: Final = 1.0
"""How often the flow is looked at, in seconds."""

UNSEEN_S: Final = 10.0
"""After how many seconds without a look at it a lane counts as one that has something to do."""

ASK_AFTER_S: Final = 5.0
"""How long nothing may move before sinks in other processes are asked, and then how often."""

NO_LANES_S: Final = 10.0
"""How long a process that has been given no lane waits for one, in seconds."""

NAMED: Final = 3
"""How many lanes a reason names."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A lane as its worker last saw it."""

    at: float
    readable: int
    in_flight: int


class FlowHealth:
    """How one process of a flow is; it speaks for itself and its lanes.

    Stalled means: lanes have records to read or in flight, and for longer than a limit none of
    them has come on in the slowest of its sinks. Time while the broker or the
    schema registry is away does not count, nor time in which the process itself was stopped, nor
    its start.

    Args:
        board: The sinks' progress.
        here: Those of the sinks that all lanes of this process have in this process.
        limit_s: How long nothing may move, in seconds.
        broker: Its addresses, to name it.
        watchdog: Watches questions to sinks of other processes.
        metrics: Where it is told whether the flow is stalled.
        clock: Seconds that never go back.
        pipeline: Whose lanes they are, for the log, where there are several.
    """

    def __init__(
        self,
        board: Board,
        here: Collection[str],
        limit_s: float,
        broker: str,
        watchdog: Watchdog,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        pipeline: str = "",
    ) -> None:
        self._named = {"pipeline": pipeline} if pipeline else {}
        self._board = board
        self._here = tuple(here)
        self._limit_s = limit_s
        self._broker = broker
        self._watchdog = watchdog
        self._metrics = metrics
        self._clock = clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._done = threading.Event()
        self._looked = self._asked = clock()
        self._began: float | None = None
        self._lanes: dict[str, _Seen | None] = {}
        self._written: dict[str, int] = {}
        self._away = False
        self._unregistered = False
        self._open = False
        self._ending = False
        self._stuck_s = 0.0
        self._reason: str | None = None
        metrics.stalled.set(0)

    def watch(self) -> None:
        """Look at the flow from a thread of its own, until the last lane has ended."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="health", daemon=True)
                self._thread.start()

    def begins(self) -> None:
        """The dataflow runs; what lanes this process has will start soon."""
        self._began = self._clock()

    def starts(self, lane: str) -> None:
        """A lane is being started."""
        self._lanes[lane] = None

    def seen(self, lane: str, readable: int, in_flight: int) -> None:
        """A worker has looked at a lane.

        Args:
            lane: Its key.
            readable: Offsets that it could read.
            in_flight: Records that it has read and that are not in all sinks.
        """
        self._lanes[lane] = _Seen(self._clock(), readable, in_flight)

    def ends(self, lane: str) -> None:
        """A lane is read no more: the flow was asked to end."""
        self._ending = True
        self._lanes.pop(lane, None)
        if not self._lanes:
            self._done.set()

    def broker_away(self, away: bool) -> None:
        """Whether the broker is away, as far as is known."""
        self._away = away

    def registry_away(self, away: bool) -> None:
        """Whether a worker waits for the schema registry."""
        self._unregistered = away

    def live(self) -> Answer:
        """Well unless the flow is stalled."""
        reason = self._reason
        lanes = [one for one in list(self._lanes.values()) if one is not None]
        told: dict[str, object] = {
            "status": "ok" if reason is None else "stalled",
            "lanes": len(self._lanes),
            "readable": sum(one.readable for one in lanes),
            "in_flight": sum(one.in_flight for one in lanes),
            "no_progress_s": round(self._stuck_s, 1),
        }
        if reason is not None:
            told["reason"] = reason
        return Answer(well=reason is None, told=told)

    def ready(self) -> Answer:
        """Well once all lanes have started and their sinks are open, while the broker is there."""
        reason = self._unready()
        if reason is None:
            return Answer(well=True, told={"status": "ok"})
        return Answer(well=False, told={"status": "not ready", "reason": reason})

    def look(self) -> None:
        """See whether anything has moved since the last look; say so when that has changed."""
        now = self._clock()
        # No more than it can be late: a process that was stopped did not stand still by itself.
        passed, self._looked = min(now - self._looked, 2 * LOOK_S), now
        self._open = self._open or (bool(self._lanes) and self._starting() is None)
        written = {lane: self._board.written(lane) for lane in list(self._lanes)}
        moved, self._written = written != self._written, written
        waiting = self._waiting(now)
        if moved or not waiting or self._away or self._unregistered or not self._open:
            self._stuck_s = 0.0
        else:
            self._stuck_s += passed
        self._judge(waiting, now)
        self._ask(waiting, now)

    def _run(self) -> None:
        while not self._done.wait(LOOK_S):
            self.look()

    def _waiting(self, now: float) -> list[str]:
        """The lanes that have something to do, or whose worker has not looked for long."""
        return [
            lane
            for lane, seen in list(self._lanes.items())
            if seen is not None and (seen.readable or seen.in_flight or now - seen.at > UNSEEN_S)
        ]

    def _judge(self, waiting: list[str], now: float) -> None:
        stalled = self._stuck_s > self._limit_s
        if stalled and self._reason is None:
            reason = self._why(waiting, now)
            log.error("flow stalled", stage="flow", reason=reason, **self._named)
            self._metrics.stalled.set(1)
        elif not stalled and self._reason is not None:
            log.info("flow moves again", stage="flow", **self._named)
            self._metrics.stalled.set(0)
        self._reason = self._why(waiting, now) if stalled else None

    def _why(self, waiting: list[str], now: float) -> str:
        unseen = [lane for lane in waiting if self._age(lane, now) > UNSEEN_S]
        for_s = f"{self._stuck_s:.0f} s"
        if unseen:
            return f"no worker has read {_named(unseen)} for {for_s}"
        behind = min(
            self._board.sinks, key=lambda sink: sum(self._board.get(sink, one) for one in waiting)
        )
        return f"nothing of {_named(waiting)} has reached all sinks for {for_s}; last is {behind}"

    def _age(self, lane: str, now: float) -> float:
        seen = self._lanes.get(lane)
        return now - seen.at if seen is not None else 0.0

    def _ask(self, waiting: list[str], now: float) -> None:
        """Ask sinks of other processes for their progress, which no post tells this one."""
        pause = min(ASK_AFTER_S, self._limit_s / 2)
        if self._stuck_s < pause or now - self._asked < pause:
            return
        self._asked = now
        for sink in set(self._board.sinks) - set(self._here):
            # What can't be read does not move either, which is told in time.
            with self._watchdog.busy(f"progress of {sink}"), suppress(HeadraceError):
                self._board.refresh(sink, waiting)

    def _unready(self) -> str | None:
        if self._ending:
            return "the flow is ending"
        if self._away:
            return f"kafka.bootstrap_servers: {self._broker}: away"
        if self._unregistered:
            return "registry.url: the schema registry is away"
        if not self._lanes:
            # More workers than lanes: this one stands by.
            waits = self._began is None or self._clock() - self._began < NO_LANES_S
            return "no lane has started" if waits else None
        return self._starting()

    def _starting(self) -> str | None:
        """Why not all lanes run from end to end; None if they do."""
        for lane, seen in list(self._lanes.items()):
            if seen is None:
                return f"{lane} is starting"
            for sink in self._here:
                if not self._board.owns(sink, lane):
                    return f"the {sink} is not open for {lane}"
        return None


def together(probes: Mapping[str, Probe]) -> Probe:
    """What asks several pipelines, by name: well where all are, or else it says which is not."""

    def probe() -> Answer:
        answers = {name: ask() for name, ask in probes.items()}
        ill = {name: answer.told for name, answer in answers.items() if not answer.well}
        told: dict[str, object] = {"status": next((t["status"] for t in ill.values()), "ok")}
        if ill:
            told["reason"] = "; ".join(f"{name}: {own['reason']}" for name, own in ill.items())
        told["pipelines"] = {name: answer.told for name, answer in answers.items()}
        return Answer(well=not ill, told=told)

    return probe


def _named(lanes: Collection[str]) -> str:
    """Some lanes by name, and how many more there are."""
    shown = ", ".join(sorted(lanes)[:NAMED])
    return shown if len(lanes) <= NAMED else f"{shown} and {len(lanes) - NAMED} more"
