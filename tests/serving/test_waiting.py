"""Waiting for the table, with a progress that the test moves."""

from __future__ import annotations

import asyncio
import time

import pytest

from serving.waiting import ProgressWatch
from sinks.errors import SinkError


class Progress:
    """The table's progress, and how often it was asked for."""

    def __init__(self) -> None:
        self.next: dict[str, int] = {}
        self.asked = 0
        self.fails = False

    def __call__(self) -> dict[str, int]:
        """The progress."""
        self.asked += 1
        if self.fails:
            raise SinkError("the table is gone")
        return dict(self.next)


def test_reached() -> None:
    """A record is held once the lane's next offset is beyond it, and not before."""
    progress = Progress()
    progress.next = {"t/000000": 5, "t/000001": 100}

    async def work() -> None:
        watch = ProgressWatch(progress)
        assert await watch.reached("t/000000", 4, 1)
        assert not await watch.reached("t/000000", 5, 0.1)
        assert not await watch.reached("u/000000", 0, 0.1)
        waiting = asyncio.create_task(watch.reached("t/000000", 7, 5))
        await asyncio.sleep(0.1)
        progress.next["t/000000"] = 7
        await asyncio.sleep(0.1)
        assert not waiting.done()
        progress.next["t/000000"] = 8
        began = time.monotonic()
        assert await waiting
        assert time.monotonic() - began < 1

    asyncio.run(work())


def test_shared() -> None:
    """Many who wait cost as many looks as one, and nobody who waits costs none."""
    progress = Progress()

    async def work() -> None:
        watch = ProgressWatch(progress)
        waiting = [asyncio.create_task(watch.reached("t/000000", i, 5)) for i in range(100)]
        await asyncio.sleep(0.2)
        asked = progress.asked
        progress.next["t/000000"] = 100
        assert all(await asyncio.gather(*waiting))
        assert asked < 15
        await asyncio.sleep(0.1)
        asked = progress.asked
        await asyncio.sleep(0.2)
        assert progress.asked == asked

    asyncio.run(work())


def test_failure() -> None:
    """A table that can't be read is told to all who wait; the next one tries again."""
    progress = Progress()
    progress.fails = True

    async def work() -> None:
        watch = ProgressWatch(progress)
        waiting = [asyncio.create_task(watch.reached("t/000000", 0, 5)) for _ in range(3)]
        for one in waiting:
            with pytest.raises(SinkError):
                await one
        progress.fails = False
        progress.next["t/000000"] = 1
        assert await watch.reached("t/000000", 0, 5)

    asyncio.run(work())
