from __future__ import annotations

import threading

from operators.worker import PerWorker


def test_each_thread_has_its_own() -> None:
    """A worker finds what it had before, and never what another has."""
    made = iter(range(9))
    held = PerWorker(lambda: next(made))
    assert held() == 0
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.extend([held(), held()]))
    thread.start()
    thread.join()
    assert found == [1, 1]
    assert held() == 0
