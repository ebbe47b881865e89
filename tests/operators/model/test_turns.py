"""Turns of the threads that run a model."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.model.turns import Turns
from tests.samples import until

WAIT_S = 10.0


@given(most=st.integers(1, 3), threads=st.integers(1, 6), calls=st.integers(1, 4))
def test_no_more_than_so_many(most: int, threads: int, calls: int) -> None:
    """At no moment are more at it than may be, and each has all its turns."""
    turns, lock = Turns(most), threading.Lock()
    running = worst = done = 0

    def work() -> None:
        nonlocal running, worst, done
        for _ in range(calls):
            with turns:
                with lock:
                    running += 1
                    worst = max(worst, running)
                with lock:
                    running -= 1
                    done += 1

    own = [threading.Thread(target=work) for _ in range(threads)]
    for thread in own:
        thread.start()
    for thread in own:
        thread.join(WAIT_S)
    assert done == threads * calls
    assert 1 <= worst <= most


def test_who_waits_comes_before_who_has_just_been() -> None:
    """A thread that comes again and again keeps none out: those that wait go on in their order."""
    turns, order = Turns(1), list[str]()

    def wait(name: str) -> None:
        with turns:
            order.append(name)

    turns.__enter__()
    threads = []
    for number in range(3):
        threads.append(threading.Thread(target=wait, args=(f"waits {number}",)))
        threads[-1].start()
        until(lambda: len(turns._waiting) == len(threads))
    turns.__exit__(None, None, None)
    with turns:
        order.append("again")
    for thread in threads:
        thread.join(WAIT_S)
    assert order == ["waits 0", "waits 1", "waits 2", "again"]


def test_an_error_gives_the_turn_back() -> None:
    """A call that fails does not keep its turn."""
    turns = Turns(1)
    for _ in range(2):
        with pytest.raises(ValueError, match="none"), turns:
            raise ValueError("none")
