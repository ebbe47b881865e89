"""Records that may have ended the process, and those that have.

What a process had in hand when it died (`recovery.in_hand`) is *suspected*. The next start tries
suspects before anything else runs, each alone (`recovery.trial`). One that is survived is cleared.
One that the process dies of is *named*: it is tried again, first of all. One that it has died of
twice while it was alone in hand is *condemned*: it becomes a dead letter.

All of it is in one file, which is replaced as a whole, by whoever holds the lock.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import orjson
import structlog

from recovery.errors import RecoveryError
from recovery.in_hand import PATTERN, left_in_hand

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from operators.records import RecordBatch
    from recovery.in_hand import Held

__all__ = ["DEATHS", "Suspects", "mark_of"]

log = structlog.get_logger(__name__)

DEATHS: Final = 2
"""How often the process must have died with a record alone in hand for it to be condemned."""

MOST: Final = 10_000
"""How many condemned records are remembered, the newest."""

FILE: Final = "suspects.json"
VERSION: Final = 1


def mark_of(batch: RecordBatch, index: int = 0) -> str:
    """What tells a record from another at its place, as in a topic that was made anew."""
    found = blake2b(digest_size=16)
    for part in (batch.keys[index], batch.values[index]):
        found.update(b"-" if part is None else b"%d:" % len(part) + part)
    found.update(b"%d" % batch.timestamps[index])
    return found.hexdigest()


class Suspects:
    """The suspects of a flow on this machine.

    Args:
        folder: Where they are kept; made if it is not there.

    Raises:
        RecoveryError: It can't be read or written.

    Attributes:
        ranges: Offsets of lanes, the first and the one after the last, with records that were in
            hand together.
        named: For a lane and an offset, how often the process has died with that record alone in
            hand, and the record's mark.
        condemned: The marks of those that are to become dead letters.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ranges: list[tuple[str, int, int]] = []
        self.named: dict[tuple[str, int], tuple[int, str]] = {}
        self.condemned: dict[tuple[str, int], str] = {}
        with self._told():
            folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only process that changes them; waits for another.

        Raises:
            RecoveryError: They can't be read or written.
        """
        with self._told():
            lock = (self.folder / "lock").open("w")
        with lock:
            with self._told():
                fcntl.flock(lock, fcntl.LOCK_EX)
            self.load()
            yield

    def load(self) -> None:
        """Read them.

        Raises:
            RecoveryError: They can't be read.
        """
        path = self.folder / FILE
        with self._told():
            text = path.read_bytes() if path.exists() else b""
        if not text:
            return
        try:
            self._set(orjson.loads(text))
        except (ValueError, TypeError, KeyError) as error:
            raise RecoveryError(
                f"recovery.suspects: {path}: can't be read: {error}; delete it: suspects are then "
                "tried again"
            ) from error

    def adopt(self) -> None:
        """Take over what processes that have ended had in hand.

        Nothing is counted twice, whenever this ends: a note says which death it would be.

        Raises:
            RecoveryError: It can't be read or written.
        """
        with self._told():
            found = {path: left_in_hand(path) for path in sorted(self.folder.glob(PATTERN))}
        ended = {path: held for path, held in found.items() if held is not None}
        for held in ended.values():
            for one in held:
                self._suspect(one)
        if ended:
            self.save()
        with self._told():
            for path in ended:
                path.unlink()

    def save(self) -> None:
        """Write them, as a whole.

        Raises:
            RecoveryError: They can't be written.
        """
        named = [[*place, *known] for place, known in self.named.items()]
        condemned = [[*place, mark] for place, mark in self.condemned.items()][-MOST:]
        content = {"version": VERSION, "ranges": self.ranges, "named": named}
        draft = self.folder / f"{FILE}.{os.getpid()}"
        with self._told():
            draft.write_bytes(orjson.dumps(content | {"condemned": condemned}))
            draft.replace(self.folder / FILE)

    def _suspect(self, held: Held) -> None:
        lane, start, end, alone, mark = held
        place = lane, start
        if not alone:
            if (lane, start, end) not in self.ranges:
                self.ranges.append((lane, start, end))
        elif alone < DEATHS:
            self.named[place] = alone, mark
        else:
            self.named.pop(place, None)
            self.condemned[place] = mark
            log.error(
                "poison record",
                stage="recovery",
                record=f"{lane}/{start}",
                deaths=alone,
                outcome="becomes a dead letter",
            )

    def _set(self, content: dict[str, Any]) -> None:
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']} is not {VERSION}")
        self.ranges = [(lane, start, end) for lane, start, end in content["ranges"]]
        self.named = {(lane, at): (deaths, mark) for lane, at, deaths, mark in content["named"]}
        self.condemned = {(lane, at): mark for lane, at, mark in content["condemned"]}

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RecoveryError(
                f"recovery.suspects: {self.folder}: {error.strerror}; name a folder on a disk of "
                "this machine, or none to do without"
            ) from error
