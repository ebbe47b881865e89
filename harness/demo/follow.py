"""Shows how far a step is, and sees that all still runs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harness.demo.watch import Counts
from harness.process import HarnessError, tail

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.broker import Broker
    from harness.demo.place import Place
    from harness.demo.shown import Screen
    from harness.demo.watch import Watch
    from harness.demo.writer import Writer
    from harness.flow import Flow

__all__ = ["Follower"]

STUCK_S: Final = 120.0


@dataclass(frozen=True)
class Follower:
    """Follows the flow through the demo's steps.

    Args:
        screen: Where it is shown.
        place: Where the flow's log is.
        broker: What must run.
        flow: The same.
        watch: What sees how far it is.
    """

    screen: Screen
    place: Place
    broker: Broker
    flow: Flow
    watch: Watch

    def until(
        self,
        done: Callable[[Counts], bool],
        line: Callable[[Counts], str],
        total: int,
        base: int = 0,
        writer: Writer | None = None,
    ) -> None:
        """Show how far it is until it is done.

        Args:
            done: Whether it is.
            line: What is shown.
            total: How many records there are when all are written.
            base: How many of them were there before.
            writer: Who writes them, if it is one of ours.

        Raises:
            HarnessError: The flow or the broker has ended, or nothing moves any more.
        """
        moved, before = time.monotonic(), Counts(0, 0, 0)
        with self.screen.ticker(total - base) as ticker:
            while True:
                counts = self.watch.counts()
                if counts != before:
                    moved, before = time.monotonic(), counts
                last = done(counts)
                ticker.show(line(counts), counts.table - base, last=last)
                if last:
                    return
                self._check(time.monotonic() - moved)
                if writer is not None:
                    writer.check()
                time.sleep(0.1)

    def _check(self, still_s: float) -> None:
        if not self.broker.alive:
            raise HarnessError(f"Kafka: ended; see {self.broker.log}: {tail(self.broker.log, 1)}")
        log = self.place.shown("flow.log")
        if not self.flow.alive:
            codes = self.flow.exit_codes
            raise HarnessError(f"flow: ended with {codes}; see {log}: {tail(self.flow.log, 1)}")
        if still_s > STUCK_S:
            raise HarnessError(f"flow: no progress for {STUCK_S:.0f} s; see {log}")
