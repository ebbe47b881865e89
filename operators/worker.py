"""State that each of a process's workers has for itself."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PerWorker"]

Value = TypeVar("Value")


class PerWorker(Generic[Value]):
    """One value for each worker, made when it first asks.

    A worker is known by the number of its thread, the only thing that tells one from another;
    Python's own state of a thread does not outlive a call here.

    Args:
        make: Makes a worker's value.
    """

    def __init__(self, make: Callable[[], Value]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._held: dict[int, Value] = {}

    def __call__(self) -> Value:
        """The calling worker's value."""
        number = threading.get_ident()
        # Without the lock, being asked hundreds of times a second.
        found = self._held.get(number)
        if found is None:
            with self._lock:
                found = self._held.setdefault(number, self._make())
        return found
