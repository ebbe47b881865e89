"""Which records native code has in its hands, in a file that outlives the process.

A tokenizer or a runtime that crashes on a text takes the process with it, and so does the kernel
where a record uses up the memory; nobody is left to say which record it was. So each thread writes
down what it hands over before it does, and takes it back after. The file is mapped into memory: a
note costs some microseconds, and the kernel keeps the page whatever becomes of the process. A power
cut may lose it, which does no harm.

Each process has a file of its own, which it holds locked: one that is not locked is of a process
that has ended.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import uuid
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import orjson

from headrace.errors import HeadraceError
from operators.worker import PerWorker
from recovery.errors import RecoveryError
from recovery.watchdog import ending

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["Held", "InHand", "left_in_hand"]

Held = tuple[str, int, int, int, str]
"""Records in hand: the key of their lane, the first offset, the one after the last, as which death
with that record alone in hand an end of the process counts (0 where it is not alone), and what
tells the record from another at its place."""

PATTERN: Final = "in-hand-1-*"
"""The names of the files; the number is of their layout."""

SLOT: Final = 65_536
"""Bytes of a thread's part of the file; a multiple of the pages that machines have."""

HEAD: Final = struct.Struct("<II")
"""Before what a slot holds: its bytes, and their checksum. A note that was half written is none."""

EMPTY: Final = HEAD.pack(0, 0)
FORGIVEN: Final = b"\x01"


class InHand:
    """What the threads of this process have in hand.

    Args:
        folder: Where the file is made; there already.

    Raises:
        RecoveryError: It can't be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / PATTERN.replace("*", uuid.uuid4().hex)
        self._maps: list[mmap.mmap] = []
        try:
            # Locked before it has its name: nobody may take it for one that was left.
            draft = self._path.with_name(f"new-{self._path.name}")
            self._file = draft.open("x+b")
            fcntl.flock(self._file, fcntl.LOCK_EX)
            draft.rename(self._path)
        except OSError as error:
            raise _unwritable(folder, error) from error
        self._head = self._map()
        self._slots = PerWorker(ending(self._map))

    @contextmanager
    def holding(self, held: Sequence[Held]) -> Iterator[None]:
        """Have records in hand, for the thread that calls.

        They stay there after an exception that is none of ours: Bytewax ends the process on it, as
        a crash would. After one of ours they don't, since that has another cause.
        """
        slot = self._slots()
        _put(slot, held)
        blamed = False
        try:
            yield
        except Exception as error:
            blamed = not isinstance(error, HeadraceError)
            raise
        finally:
            if not blamed:
                slot[: HEAD.size] = EMPTY

    def forgive(self) -> None:
        """However the process ends from now on, no record is to blame."""
        self._head[:1] = FORGIVEN

    def close(self) -> None:
        """Let go of the file, as the end of the process does; what is in hand stays there."""
        for held in self._maps:
            held.close()
        self._file.close()

    def _map(self) -> mmap.mmap:
        """The next part of the file."""
        place = len(self._maps) * SLOT
        try:
            # Not only made longer: a page that a full disk has no room for would be a crash later.
            os.posix_fallocate(self._file.fileno(), place, SLOT)
            made = mmap.mmap(self._file.fileno(), SLOT, offset=place)
        except OSError as error:
            raise _unwritable(self._path.parent, error) from error
        self._maps.append(made)
        return made


def left_in_hand(path: Path) -> list[Held] | None:
    """What the process whose file this is had in hand when it ended; None while it runs.

    Raises:
        OSError: The file can't be read.
    """
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        content = file.read()
    if content[:1] == FORGIVEN:
        return []
    slots = range(SLOT, len(content), SLOT)
    return [held for at in slots for held in _got(content[at : at + SLOT])]


def _put(slot: mmap.mmap, held: Sequence[Held]) -> None:
    room = SLOT - HEAD.size
    payload = orjson.dumps(held)
    while len(payload) > room:
        # So many lanes at once that not all can be noted: the others are not suspected.
        held = held[: len(held) * room // (len(payload) + 1)]
        payload = orjson.dumps(held)
    slot[: HEAD.size] = EMPTY
    slot[HEAD.size : HEAD.size + len(payload)] = payload
    slot[: HEAD.size] = HEAD.pack(len(payload), zlib.crc32(payload))


def _got(slot: bytes) -> list[Held]:
    if len(slot) < HEAD.size:
        return []
    size, checksum = HEAD.unpack_from(slot)
    payload = slot[HEAD.size : HEAD.size + size]
    if not size or len(payload) < size or zlib.crc32(payload) != checksum:
        return []
    found: list[list[Any]] = orjson.loads(payload)
    return [(lane, start, end, alone, mark) for lane, start, end, alone, mark in found]


def _unwritable(folder: Path, error: OSError) -> RecoveryError:
    return RecoveryError(
        f"recovery.suspects: {folder}: can't be written: {error.strerror}; name a folder on a disk "
        "of this machine, or none to do without"
    )
