"""Waits until the table holds a record, by what its fence row says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ProgressWatch"]

LOOK_EVERY_S: Final = 0.02
"""How often the table is looked at while somebody waits; a commit is 40 ms or more apart."""


class ProgressWatch:
    """Looks at the table's progress for all who wait, and for nobody if nobody does.

    Args:
        progress: The next offset of each lane in the table, by the lane's key; may block.
    """

    def __init__(self, progress: Callable[[], Mapping[str, int]]) -> None:
        self._progress = progress
        self._news = asyncio.Condition()
        self._seen: Mapping[str, int] = {}
        self._failure: Exception | None = None
        self._looks = 0
        self._task: asyncio.Task[None] | None = None
        self._waiters = 0

    async def reached(self, lane: str, offset: int, timeout_s: float) -> bool:
        """Wait until the table holds a record.

        Args:
            lane: The key of the record's lane.
            offset: The record's offset.
            timeout_s: For how long, in seconds.

        Returns:
            Whether it does.

        Raises:
            HeadraceError: The table can't be read.
        """
        self._waiters += 1
        try:
            async with asyncio.timeout(timeout_s):
                return await self._wait(lane, offset)
        except TimeoutError:
            return False
        finally:
            self._waiters -= 1

    async def _wait(self, lane: str, offset: int) -> bool:
        async with self._news:
            # What was seen before this call counts: progress never goes back.
            while self._seen.get(lane, 0) <= offset:
                if self._task is None:
                    self._task = asyncio.create_task(self._look())
                looks = self._looks
                await self._news.wait_for(lambda looks=looks: self._looks > looks)  # type: ignore[misc]
                if self._failure is not None:
                    raise self._failure
        return True

    async def _look(self) -> None:
        while self._waiters:
            failure: Exception | None = None
            try:
                seen = await asyncio.to_thread(self._progress)
            except Exception as error:  # noqa: BLE001 - told to each who waits
                failure = error
            async with self._news:
                if failure is None:
                    self._seen = seen
                self._failure = failure
                self._looks += 1
                self._news.notify_all()
            if failure is not None:
                break
            await asyncio.sleep(LOOK_EVERY_S)
        self._task = None
