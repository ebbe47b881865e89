from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import HeadraceError
from recovery.errors import RecoveryError
from recovery.in_hand import PATTERN, SLOT, InHand, left_in_hand

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from recovery.in_hand import Held

HELD: Held = ("documents/000003", 5, 9, 0, "")


@pytest.fixture
def in_hand(tmp_path: Path) -> Iterator[InHand]:
    """A process's file."""
    own = InHand(tmp_path)
    yield own
    own.close()


def left(folder: Path) -> list[Held]:
    """What all processes that have ended left in hand."""
    return [held for path in folder.glob(PATTERN) for held in left_in_hand(path) or ()]


def die_with(in_hand: InHand, *held: Held) -> None:
    """End a step as a crash would: nothing is taken back."""
    with pytest.raises(RuntimeError), in_hand.holding(held):
        raise RuntimeError


def test_outlives_kill_9(tmp_path: Path) -> None:
    """What threads have in hand when the kernel kills their process is there for the next one."""
    program = f"""
import os, pathlib, signal, threading
from recovery.in_hand import InHand
own = InHand(pathlib.Path({str(tmp_path)!r}))
there = threading.Barrier(3)
def work(lane):
    with own.holding([("before/000000", 0, 1, 0, "")]):
        pass
    with own.holding([(lane, 5, 9, 0, ""), (lane + "1", 7, 8, 1, "m")]):
        there.wait()
        threading.Event().wait()
for lane in ("a/00000", "b/00000"):
    threading.Thread(target=work, args=(lane,), daemon=True).start()
there.wait()
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert sorted(left(tmp_path)) == [
        *(("a/00000", 5, 9, 0, ""), ("a/000001", 7, 8, 1, "m")),
        *(("b/00000", 5, 9, 0, ""), ("b/000001", 7, 8, 1, "m")),
    ]


def test_a_running_process_has_left_nothing(in_hand: InHand, tmp_path: Path) -> None:
    """A file that its process still has open is told from one that was left."""
    [path] = tmp_path.glob(PATTERN)
    with in_hand.holding([HELD]):
        assert left_in_hand(path) is None
    die_with(in_hand, HELD)
    in_hand.close()
    assert left_in_hand(path) == [HELD]


@pytest.mark.parametrize(
    ("error", "blamed"),
    [(RuntimeError("in native code"), True), (HeadraceError("the table is full"), False)],
)
def test_errors(in_hand: InHand, tmp_path: Path, error: Exception, *, blamed: bool) -> None:
    """An exception is a death as a crash is, unless it is ours, which has another cause."""
    with pytest.raises(type(error)), in_hand.holding([HELD]):
        raise error
    in_hand.close()
    assert left(tmp_path) == [HELD] * blamed


def test_forgiven(in_hand: InHand, tmp_path: Path) -> None:
    """A process that was asked to end blames nothing of what it has in hand."""
    in_hand.forgive()
    die_with(in_hand, HELD)
    in_hand.close()
    assert left(tmp_path) == []


def test_more_than_there_is_room_for(in_hand: InHand, tmp_path: Path) -> None:
    """Of thousands of lanes as many are noted as there is room for, and none wrongly."""
    many = [(f"{'t' * 200}/{lane:06d}", lane, lane + 1, 0, "") for lane in range(3000)]
    die_with(in_hand, *many)
    in_hand.close()
    found = left(tmp_path)
    assert len(found) > 200
    assert found == many[: len(found)]


@given(st.binary(max_size=64), st.integers(0, 64))
def test_half_a_note_is_none(
    tmp_path_factory: pytest.TempPathFactory, note: bytes, at: int
) -> None:
    """Whatever stands in a file, reading it gives notes that were written whole, or nothing."""
    folder = tmp_path_factory.mktemp("torn")
    own = InHand(folder)
    die_with(own, HELD)
    own.close()
    [path] = folder.glob(PATTERN)
    content = bytearray(path.read_bytes())
    content[SLOT + at : SLOT + at + len(note)] = note
    path.write_bytes(content)
    assert left_in_hand(path) in ([HELD], [])


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    """A folder that can't be written is told by its setting."""
    with pytest.raises(
        RecoveryError, match=r"^recovery\.suspects: .*missing: can't be written: No"
    ):
        InHand(tmp_path / "missing")


def test_each_thread_has_its_own(in_hand: InHand, tmp_path: Path) -> None:
    """What one thread takes back leaves what another has in hand."""
    thread = threading.Thread(target=die_with, args=(in_hand, HELD))
    thread.start()
    thread.join()
    with in_hand.holding([("other/000000", 1, 2, 0, "")]):
        pass
    in_hand.close()
    assert left(tmp_path) == [HELD]
