"""Gives a target inputs for a stated time, and keeps what went wrong."""

from __future__ import annotations

import resource
import sys
import time
import traceback
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from harness.process import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hypothesis.strategies import SearchStrategy

__all__ = ["Crash", "Fuzzed", "Target", "fuzz"]

ROUND: Final = 50
"""Inputs of Hypothesis's own between two looks at the clock from outside it."""

VARIED: Final = 20
"""Inputs made of each of them by accidents, which is far cheaper."""

MOST_S: Final = 2.0
"""Seconds of a core that one input may take, on however slow a machine."""

MOST_BYTES: Final = 128 << 20
"""By how much one input may raise the most that the process ever had resident, in bytes."""

FRAMES: Final = 960
"""Frames that a check finds free, as in a program; Hypothesis lets tests go deeper."""

SHOWN: Final = 300


@dataclass(frozen=True)
class Target:
    """Something that reads what comes from outside.

    Attributes:
        name: By which it is chosen.
        inputs: What it is given.
        vary: The same input with accidents.
        check: Gives an input to it and says what became of that; raises if that is wrong.
    """

    name: str
    inputs: SearchStrategy[Any]
    vary: Callable[[Any, Random], Any]
    check: Callable[[Any], str]


@dataclass(frozen=True)
class Crash:
    """Something that went wrong, with the smallest input that did it."""

    what: str
    input: Any
    trace: str

    def __str__(self) -> str:
        shown = repr(self.input)
        cut = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}… ({len(shown)} characters)"
        return f"{self.what}\n    of {cut}"


@dataclass
class Fuzzed:
    """What came of a target.

    Attributes:
        target: Its name.
        tried: Inputs.
        seconds: How long it took.
        outcomes: What became of them.
        crashes: By what and where.
    """

    target: str
    tried: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    crashes: dict[str, Crash] = field(default_factory=dict)

    def __str__(self) -> str:
        outcomes = ", ".join(f"{name} {count}" for name, count in sorted(self.outcomes.items()))
        tried = f"{self.tried:,} inputs in {self.seconds:.0f} s"
        head = f"{self.target}: {tried}, {len(self.crashes)} crashes ({outcomes})"
        return "\n".join([head, *(f"  {crash}" for crash in self.crashes.values())])


def fuzz(target: Target, seconds: float, start: int = 0) -> Fuzzed:
    """Try inputs for so many seconds; other inputs for each `start`."""
    found = Fuzzed(target.name)
    began = time.monotonic()
    number = start
    while time.monotonic() - began < seconds:
        number += 1
        _round(target, found, number, began + seconds)
    found.seconds = time.monotonic() - began
    return found


def _round(target: Target, found: Fuzzed, number: int, deadline: float) -> None:
    @seed(number)
    @settings(
        max_examples=ROUND,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs, st.integers(0, 1 << 32))
    def one(given: Any, chance: int) -> None:
        # Not ended by an error: Hypothesis would look for the smallest input that comes too late.
        varied = Random(chance)  # noqa: S311 - not for secrets
        for accident in range(1 + VARIED):
            if not found.tried or time.monotonic() < deadline:
                _try(target, found, target.vary(given, varied) if accident else given)

    one()


def _try(target: Target, found: Fuzzed, given: Any) -> None:
    found.tried += 1
    peak, busy = _peak(), time.thread_time()
    try:
        with _frames(FRAMES):
            found.outcomes[target.check(given)] += 1
        wrong = _excess(time.thread_time() - busy, _peak() - peak)
        trace = ""
    except Exception as error:  # noqa: BLE001 - whatever escapes is what is looked for
        wrong, trace = _place(error), traceback.format_exc()
    if wrong:
        known = found.crashes.get(wrong)
        if known is None or len(repr(given)) < len(repr(known.input)):
            found.crashes[wrong] = Crash(wrong, given, trace)


def _excess(busy_s: float, grown: int) -> str:
    if busy_s > MOST_S:
        return f"takes more than {MOST_S:g} s"
    return f"takes more than {MOST_BYTES >> 20} MiB" if grown > MOST_BYTES else ""


def _peak() -> int:
    """The most that this process ever had resident, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _place(error: BaseException) -> str:
    """What was raised, and the last line of ours that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT)]
    where = [own for own in ours if ".venv" not in own.filename][-1]
    told = (
        str(error).splitlines()[0][:100] if str(error) and isinstance(error, AssertionError) else ""
    )
    return (
        f"{type(error).__name__} {told} at {Path(where.filename).relative_to(ROOT)}:{where.lineno}"
    )


@contextmanager
def _frames(free: int) -> Iterator[None]:
    """Leave so many frames to what runs in here."""
    depth, frame = 0, sys._getframe()
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + free)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
