"""A long run at seven tenths of what the flow can do, with a kill every few minutes.

Does anything grow? Memory, the table's files and versions, and the recovery store are looked at
all the while, and compared from one span between two kills to the others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, overload

from harness.faults import TrialResult
from harness.memory import MIB, Sampler

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.faults import Trial

__all__ = ["Span", "SteadyResult", "Unlike", "steady"]

SHARE: Final = 0.7
PROBE: Final = 4000
"""Records that are drained at once to find out what the flow can do in a second."""

SPAN_S: Final = 300.0
"""Seconds from one kill to the next."""

LOOK_S: Final = 5.0
KEYS: Final = 5000

GROWTH: Final = 1.25
"""What a span late in the run may have of what one early had. Memory at its peak differs by a
tenth between spans of the same work."""


class Unlike(Sequence[str]):
    """A million texts, no two alike, so that nearly each one costs an inference.

    Args:
        lines: What they are made of.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines

    def __len__(self) -> int:
        return 1_000_000

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        return f"{index} {self._lines[index % len(self._lines)]}"


@dataclass(frozen=True, slots=True)
class Span:
    """The most that was seen between two kills.

    Attributes:
        memory: Of the flow's largest process, in bytes.
        files: In the table's folder.
        versions: Of the table.
        recovery: Bytes of the recovery store.
        behind: Records that were written and not yet committed, when it ended.
    """

    memory: int
    files: int
    versions: int
    recovery: int
    behind: int

    def __str__(self) -> str:
        return (
            f"largest process {self.memory / MIB:.0f} MiB, table {self.files} files and "
            f"{self.versions} versions, recovery {self.recovery / MIB:.1f} MiB, "
            f"{self.behind} records behind"
        )


@dataclass
class SteadyResult(TrialResult):
    """What a steady run counted.

    Attributes:
        spans: From each kill to the next.
    """

    spans: list[Span] = field(default_factory=list)

    @property
    def flat(self) -> bool:
        """Whether nothing has grown from the first third of the run to its last."""
        third = max(1, len(self.spans) // 3)
        early, late = self.spans[:third], self.spans[-third:]
        looks: Sequence[Callable[[Span], int]] = (
            lambda span: span.memory,
            lambda span: span.files,
            lambda span: span.versions,
            lambda span: span.recovery,
        )
        return all(max(map(of, late)) <= GROWTH * max(map(of, early)) for of in looks)

    @property
    def clean(self) -> bool:
        """Whether nothing was lost, doubled, out of order or wrong, and nothing has grown."""
        return super().clean and self.flat

    def __str__(self) -> str:
        return f"{super().__str__()}; {'flat' if self.flat else 'GROWN'} in {len(self.spans)} spans"


def steady(trial: Trial) -> SteadyResult:
    """Seven tenths of what the flow can do, and a kill every five minutes; for `minutes`."""
    texts = Unlike(trial.texts)
    # Each in a folder of its own, and the table too.
    common = replace(trial, texts=texts, keys=KEYS)
    probe = replace(common, folder=trial.folder / "probe", uri="", records=PROBE, rate=None)
    capacity = _capacity(probe)
    rate = SHARE * capacity
    count = max(PROBE, round(rate * trial.minutes * 60))
    own = replace(common, folder=trial.folder / "steady", uri="", records=count, rate=rate)
    spans: list[Span] = []
    with own:
        own.note(f"{rate:.0f} records a second of the {capacity:.0f} that it can do")
        deadline = time.monotonic() + trial.minutes * 60
        while time.monotonic() < deadline:
            spans.append(_watched(own, min(deadline, time.monotonic() + SPAN_S)))
            own.note(f"span {len(spans)}: {spans[-1]}")
            _disturb(own, len(spans))
        found = own.finish(timeout_s=1200)
    return SteadyResult(found.report, found.reader_faults, found.disturbances, found.seconds, spans)


def _capacity(trial: Trial) -> float:
    """Records a second that the flow works off of a backlog."""
    with trial:
        trial.await_progress()
        before, started = trial.committed(), time.monotonic()
        trial.drain()
        return (trial.committed() - before) / (time.monotonic() - started)


def _disturb(trial: Trial, number: int) -> None:
    kinds = (trial.kill_at_random, trial.kill_writer, trial.end)
    kinds[number % len(kinds)]()


def _watched(trial: Trial, until: float) -> Span:
    """What is seen until then."""
    looks: list[tuple[int, int, int]] = []
    with Sampler(lambda: trial.flow.flow.pids) as sampler:
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(LOOK_S, left))
            looks.append(
                (
                    len(_sizes(trial.uri)),
                    len(_sizes(f"{trial.uri}/documents.lance/_versions")),
                    sum(_sizes(trial.recovery)),
                )
            )
    files, versions, recovery = (max(column) for column in zip(*looks, strict=True))
    memory = max(sampler.peaks.values(), default=0)
    return Span(memory, files, versions, recovery, trial.behind())


def _sizes(folder: str | Path) -> list[int]:
    """The sizes of all files below; of those that are removed meanwhile, 0."""
    return [_size(Path(at, name)) for at, _, names in os.walk(folder) for name in names]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
