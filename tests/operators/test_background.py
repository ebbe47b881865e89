from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.background import Ahead, Background
from tests.samples import until

if TYPE_CHECKING:
    from collections.abc import Sequence

NUDGE = -1


class Gate:
    """A step that waits until it is let through, and remembers what it was called with."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.calls: list[list[int]] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        """The items doubled."""
        self.calls.append(list(items))
        assert self.open.wait(20)
        return [2 * item for item in items]


def nudge(item: int) -> int | None:
    """What stands for a nudge among the results."""
    return NUDGE if item == NUDGE else None


def test_a_call_never_waits() -> None:
    """Items are taken at once, results come with a later call, and a nudge passes by."""
    gate = Gate()
    background = Background(gate, nudge)
    assert background.idle()
    assert background([1, 2]) == []
    until(lambda: gate.calls == [[1, 2]])
    assert not background.idle()
    assert not background.finished()
    gate.open.set()
    until(background.finished)
    assert not background.idle()
    assert background([NUDGE]) == [2, 4, NUDGE]
    assert background.idle()
    assert gate.calls == [[1, 2]]


def test_what_waits_goes_together() -> None:
    """What comes while the step runs makes one call, and is asked for only by who reads ahead."""
    gate = Gate()
    background = Background(gate, nudge)
    assert background.ready(ahead=False)
    background([1])
    until(lambda: gate.calls == [[1]])
    assert not background.ready(ahead=False)
    assert background.ready(ahead=True)
    background([2])
    assert not background.ready(ahead=True)
    background([3])
    gate.open.set()
    until(lambda: gate.calls == [[1], [2, 3]])


def test_what_the_step_raises_is_raised_where_its_results_are_taken() -> None:
    """An error ends the worker that waits for the results; it is not lost in the thread."""

    def fail(items: Sequence[int]) -> list[int]:
        raise ValueError(str(items))

    background = Background(fail, nudge)
    background([7])
    until(background.finished)
    with pytest.raises(ValueError, match="7"):
        background([NUDGE])
    with pytest.raises(ValueError, match="7"):
        background([8])


def test_workers_have_threads_of_their_own() -> None:
    """One worker's results never come out at another's, which would mix up their order."""
    both = threading.Barrier(2)

    def step(items: Sequence[int]) -> list[int]:
        both.wait(20)  # both are under way at once
        return list(items)

    background = Background(step, nudge)
    came: dict[int, list[int]] = {}

    def work(number: int) -> None:
        background([number])
        until(background.finished)
        came[number] = background([NUDGE])
        both.wait(20)

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert came == {1: [1, NUDGE], 2: [2, NUDGE]}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=12), st.data())
def test_order_is_kept(calls: list[list[int]], data: st.DataObject) -> None:
    """However calls and steps fall, results come once each and in the items' order."""
    background = Background(lambda items: [2 * item for item in items], nudge)
    came: list[int] = []
    for items in calls:
        came += background(items)
        if data.draw(st.booleans()):
            time.sleep(0.0005)
            came += background([NUDGE])
    deadline = time.monotonic() + 10
    while not background.idle():
        assert time.monotonic() < deadline
        came += background([NUDGE])
    assert [item for item in came if item != NUDGE] == [
        2 * item for items in calls for item in items
    ]


class Held:
    """What gathers results, as a test has it."""

    def __init__(self) -> None:
        self.is_due = self.is_empty = self.is_released = False

    def due(self) -> bool:
        """Whether something must be let go."""
        return self.is_due

    def empty(self) -> bool:
        """Whether nothing is held."""
        return self.is_empty

    def release(self) -> None:
        """Hold nothing back."""
        self.is_released = True


def test_the_source_goes_on_for_as_long_as_anything_is_held() -> None:
    """It nudges for a window that is due, and ends only when step and windows are empty."""
    held = Held()
    ahead = Ahead(Background(list, nudge), held)
    assert not ahead.finished()
    assert not ahead.idle()
    held.is_due = True
    assert ahead.finished()
    held.is_due, held.is_empty = False, True
    assert ahead.idle()
    ahead.step([1])
    until(ahead.finished)
    assert not ahead.idle()
    assert ahead.ready(ahead=False)
    ahead.release()
    assert held.is_released
