"""The run: controls and flows in interleaved rounds, then freshness under steady loads."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from benchmarks.control import AUTO, FP32, NAIVE, Control, Pass
from benchmarks.figures import FLOW, Trial, fresh, summed_up
from benchmarks.load import Generator
from benchmarks.remote import Remote
from benchmarks.rig import Drain, Rig, passed_on
from benchmarks.texts import gather, stratum, take
from harness.broker import Broker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from benchmarks.figures import Result
    from benchmarks.texts import Corpus

__all__ = ["LEVELS", "PROCESSES", "Run", "Size"]

PROCESSES: Final = (1, 2)
LEVELS: Final = (0.2, 0.5, 0.7)
"""Steady loads, as shares of what one process drained."""

SHORT, MEDIUM = "short", "medium"
# Which share of the texts each process of a control encodes; their rates hardly depend on it.
_SHARES: Final = {NAIVE: 1 / 8, FP32: 1 / 4, AUTO: 1 / 2}
_WARM: Final = 256
_SKIP_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        docs: Short texts of a backlog; of the medium ones an eighth.
        rounds: Of controls and flows.
        seconds: Of each steady load.
    """

    docs: int = 8000
    rounds: int = 3
    seconds: float = 30.0


@dataclass
class Run:
    """All that is started for a run, and what it has found so far.

    As a context manager it starts the broker and its helpers on entry, and ends them on exit.

    Args:
        size: How much is measured.
        environ: The caller's environment.
        folder: For data and logs.
    """

    size: Size
    environ: Mapping[str, str]
    folder: Path
    model: dict[str, Any] = field(default_factory=dict, init=False)
    trials: list[Trial] = field(default_factory=list, init=False)
    freshness: list[dict[str, Any]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._stack = ExitStack()
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        with self._stack as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def results(self) -> list[Result]:
        """The rounds so far, summed up."""
        return summed_up(self.trials)

    def measure(self) -> None:
        """Runs the rounds, then the steady loads.

        Raises:
            HarnessError: A flow ended, or did not do in time what it was given.
        """
        for number in range(self.size.rounds):
            for processes in PROCESSES:
                self._say(f"round {number + 1} of {self.size.rounds}, {_of(processes)}: controls")
                self._controls(number, processes)
                self._say(f"round {number + 1} of {self.size.rounds}, {_of(processes)}: flow")
                self._drains(number, processes)
        self._steady_loads()
        self._say("done")

    def _start(self, stack: ExitStack) -> None:
        self._say("reading docstrings")
        self._corpus: Corpus = gather()
        self._say("starting broker and model")
        settings = passed_on(self.environ, self.folder)
        broker = stack.enter_context(Broker(folder=self.folder / "kafka"))
        loader = stack.enter_context(Remote(Generator, broker.bootstrap_servers))
        self._controllers = [
            stack.enter_context(Remote(Control, settings)) for _ in range(max(PROCESSES))
        ]
        self._rig = Rig(broker, loader, settings, self.folder)
        self.model = self._controllers[0].call("describe")
        self._texts = {
            SHORT: take(self._corpus.short, _WARM, self.size.docs),
            MEDIUM: take(self._corpus.medium, _WARM // 4, max(1, self.size.docs // 8)),
        }
        self._warm = [
            *take(self._corpus.short, 0, _WARM),
            *take(self._corpus.medium, 0, _WARM // 4),
        ]
        self._warm_up()

    def _warm_up(self) -> None:
        texts = stratum(self._warm, _WARM // 4, 0)
        for subject in self._subjects(1):
            self._at_once(subject, [texts] * len(self._controllers))

    def _subjects(self, processes: int) -> list[str]:
        """The controls; the chosen runtime is none of its own where it is the first control's."""
        chosen = (self.model["runtime"], self.model["precision"])
        subjects = [NAIVE] if processes == 1 else []
        return [*subjects, FP32, *([] if chosen == ("onnxruntime", "fp32") else [AUTO])]

    def _controls(self, number: int, processes: int) -> None:
        for kind, texts in self._texts.items():
            for subject in self._subjects(processes):
                size = max(1, int(len(texts) * _SHARES[subject]))
                first = number * processes
                parts = [stratum(texts, size, first + own) for own in range(processes)]
                passes = self._at_once(subject, parts)
                self.trials.append(_control_trial(kind, subject, number, passes))

    def _at_once(self, subject: str, parts: Sequence[Sequence[str]]) -> list[Pass]:
        """Lets a process encode each part, all at the same time."""
        chosen = self._controllers[: len(parts)]
        for one, texts in zip(chosen, parts, strict=True):
            one.ask("run", subject, texts)
        return [one.answer() for one in chosen]

    def _drains(self, number: int, processes: int) -> None:
        with self._rig.running(processes, self._warm) as flow:
            for kind, texts in self._texts.items():
                drained = flow.drain(texts)
                self.trials.append(_flow_trial(kind, processes, number, drained))

    def _steady_loads(self) -> None:
        capacity = next(
            one.docs_per_s.median
            for one in self.results
            if (one.texts, one.processes, one.subject) == (SHORT, 1, FLOW) and one.docs_per_s
        )
        used = _WARM
        with self._rig.running(1, self._warm) as flow:
            for fraction in LEVELS:
                rate = fraction * capacity
                texts = take(self._corpus.short, used, max(1, int(rate * self.size.seconds)))
                used += len(texts)
                self._say(f"freshness at {fraction:.0%} of {capacity:.0f} docs/s")
                measured = flow.pace(texts, rate, min(_SKIP_S, self.size.seconds / 4))
                self.freshness.append(fresh(fraction, rate, measured))

    def _say(self, line: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {line}", file=sys.stderr, flush=True)


def _of(processes: int) -> str:
    return "1 process" if processes == 1 else f"{processes} processes"


def _control_trial(kind: str, subject: str, number: int, passes: Sequence[Pass]) -> Trial:
    return Trial(
        kind,
        len(passes),
        subject,
        number,
        docs=sum(one.docs for one in passes),
        wall_s=max(one.ended for one in passes) - min(one.started for one in passes),
        cpu_s=sum(one.cpu_s for one in passes),
        tokens=sum(one.tokens for one in passes),
    )


def _flow_trial(kind: str, processes: int, number: int, drained: Drain) -> Trial:
    return Trial(
        kind,
        processes,
        FLOW,
        number,
        docs=drained.docs,
        wall_s=drained.topic_s,
        cpu_s=drained.cpu_s,
        table_s=drained.table_s,
        broker_cpu_s=drained.broker_cpu_s,
    )
