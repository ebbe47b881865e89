"""The run: all subjects in interleaved rounds, then each one's freshness under steady loads."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from confluent_kafka import KafkaException

from benchmarks.control import AUTO, FP32, NAIVE, Control, Pass
from benchmarks.figures import Trial, fresh, summed_up
from benchmarks.load import Generator
from benchmarks.remote import Remote
from benchmarks.rig import Drain, Rig, passed_on
from benchmarks.subjects import (
    FLOW_FP32,
    Rival,
    headrace,
    quantize,
    rival_python,
    rival_versions,
)
from benchmarks.texts import gather, stratum, take
from benchmarks.weights import transformer_folder
from flows.access import model_source_of
from flows.settings import load
from harness.broker import Broker
from harness.process import ROOT, HarnessError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from benchmarks.figures import Result
    from benchmarks.subjects import Subject
    from benchmarks.texts import Corpus

__all__ = ["LEVELS", "TRICKLE", "Run", "Size"]

LEVELS: Final = (0.25, 0.5, 0.75)
"""Steady loads, as shares of what a subject drained."""
TRICKLE: Final = 1.0
"""Documents a second of the last steady load."""

SHORT, MEDIUM = "short", "medium"
_FEWEST: Final = 16
# Which share of the texts each process of a control encodes; their rates hardly depend on it.
_SHARES: Final = {NAIVE: 1 / 8, FP32: 1 / 4, AUTO: 1 / 2}
_FP32_SHARE: Final = 1 / 4
_WARM: Final = 256
_RIVAL_WARM: Final = 64
_SKIP_S: Final = 3.0
_REST_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        docs: Short texts of a backlog; of the medium ones a quarter.
        rounds: Of all subjects.
        seconds: Of each steady load.
        processes: The numbers of processes of a subject.
    """

    docs: int = 4000
    rounds: int = 3
    seconds: float = 20.0
    processes: tuple[int, ...] = (1, 2)


@dataclass
class Run:
    """All that is started for a run, and what it has found so far.

    As a context manager it starts the broker and its helpers on entry, and ends them on exit.

    Args:
        size: How much is measured.
        environ: The caller's environment.
        folder: For data and logs.
        rivals: What the flow is compared with.
    """

    size: Size
    environ: Mapping[str, str]
    folder: Path
    rivals: Sequence[Rival] = ()
    model: dict[str, Any] = field(default_factory=dict, init=False)
    trials: list[Trial] = field(default_factory=list, init=False)
    freshness: list[dict[str, Any]] = field(default_factory=list, init=False)
    failed: dict[tuple[str, int], str] = field(default_factory=dict, init=False)
    rival_versions: dict[str, dict[str, str]] = field(default_factory=dict, init=False)
    subjects: list[Subject] = field(default_factory=list, init=False)

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

        A rival that ends or falls behind without end is left out from then on, with that number of
        processes, and `failed` says why.

        Raises:
            HarnessError: The flow ended, or did not do in time what it was given.
        """
        for number in range(self.size.rounds):
            name = f"round {number + 1} of {self.size.rounds}"
            for processes in self.size.processes:
                self._say(f"{name}, {_of(processes)}: controls")
                self._controls(number, processes)
                for subject in self._working(processes):
                    self._say(f"{name}, {_of(processes)}: {subject.title}")
                    self._or_left_out(partial(self._drains, number), subject, processes)
        for processes in self.size.processes:
            for subject in self._working(processes):
                if subject.steady:
                    self._or_left_out(self._steady_loads, subject, processes)
        self._say("done")

    def _start(self, stack: ExitStack) -> None:
        for one in self.rivals:
            rival_python(one.environment)
        self._say("reading docstrings")
        self._corpus: Corpus = gather()
        self._say("starting broker and model")
        settings = passed_on(self.environ, self.folder)
        broker = stack.enter_context(Broker(folder=self.folder / "kafka"))
        loader = stack.enter_context(Remote(Generator, broker.bootstrap_servers))
        self._controllers = [
            stack.enter_context(Remote(Control, settings)) for _ in range(max(self.size.processes))
        ]
        self._rig = Rig(broker, loader, self.folder)
        self.model = self._controllers[0].call("describe")
        self.subjects = [*_flows(settings, same=self._is_fp32), *self._equipped(settings)]
        self._texts = {
            SHORT: take(self._corpus.short, _WARM, self.size.docs),
            MEDIUM: take(self._corpus.medium, _WARM // 4, max(_FEWEST, self.size.docs // 4)),
        }
        self._warm_up()

    def _equipped(self, settings: Mapping[str, str]) -> list[Rival]:
        """The rivals, with their model."""
        if not self.rivals:
            return []
        self._say("preparing the rivals' model")
        self.rival_versions = rival_versions(self.rivals)
        source = model_source_of(load(settings, ROOT))
        name = transformer_folder(source, self.folder / "model")
        for one in self.rivals:
            if one.backend == "onnx-int8":
                quantize(name, one.environment)
        return [replace(one, model=name) for one in self.rivals]

    @property
    def _is_fp32(self) -> bool:
        return (self.model["runtime"], self.model["precision"]) == ("onnxruntime", "fp32")

    def _working(self, processes: int) -> Iterator[Subject]:
        for one in self.subjects:
            if processes in one.processes and (one.name, processes) not in self.failed:
                yield one

    def _or_left_out(
        self, measure: Callable[[Subject, int], None], subject: Subject, processes: int
    ) -> None:
        try:
            measure(subject, processes)
        except (HarnessError, KafkaException) as error:
            if not isinstance(subject, Rival):
                raise
            self.failed[subject.name, processes] = str(error)
            self._say(f"left out from here on: {error}")

    def _warm_texts(self, subject: Subject) -> list[str]:
        size = _RIVAL_WARM if isinstance(subject, Rival) else _WARM
        return [*take(self._corpus.short, 0, size), *take(self._corpus.medium, 0, size // 4)]

    def _warm_up(self) -> None:
        texts = take(self._corpus.short, 0, _WARM // 4)
        for subject in self._controlled(1):
            self._at_once(subject, [texts] * len(self._controllers))

    def _controlled(self, processes: int) -> list[str]:
        """The controls; the chosen runtime is none of its own where it is the first control's."""
        naive = [NAIVE] if processes == 1 else []
        return [*naive, FP32, *([] if self._is_fp32 else [AUTO])]

    def _controls(self, number: int, processes: int) -> None:
        for kind, texts in self._texts.items():
            for subject in self._controlled(processes):
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

    def _drains(self, number: int, subject: Subject, processes: int) -> None:
        with self._rig.running(subject, processes, self._warm_texts(subject)) as running:
            for kind, texts in self._texts.items():
                size = max(_FEWEST, int(len(texts) * subject.part))
                part = stratum(texts, size, number) if size < len(texts) else texts
                drained = running.drain(part)
                self.trials.append(_trial(kind, processes, subject, number, drained))

    def _steady_loads(self, subject: Subject, processes: int) -> None:
        capacity = next(
            one.docs_per_s.median
            for one in self.results
            if (one.texts, one.processes, one.subject) == (SHORT, processes, subject.name)
            and one.docs_per_s
        )
        used = _WARM
        with self._rig.running(subject, processes, self._warm_texts(subject)) as running:
            time.sleep(_REST_S)
            idle = running.idle(self.size.seconds / 4)
            for fraction in (*LEVELS, None):
                rate = TRICKLE if fraction is None else fraction * capacity
                # What comes to an idle subject is what the last load is about.
                skip_s = 0.0 if fraction is None else min(_SKIP_S, self.size.seconds / 4)
                texts = take(self._corpus.short, used, max(1, int(rate * self.size.seconds)))
                used += len(texts)
                self._say(f"{subject.title}, {_of(processes)}: freshness at {rate:.0f} docs/s")
                measured = running.pace(texts, rate, skip_s)
                own = {"subject": subject.name, "processes": processes, "idle_cores": idle}
                self.freshness.append(own | fresh(fraction, rate, measured))

    def _say(self, line: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {line}", file=sys.stderr, flush=True)


def _flows(settings: Mapping[str, str], *, same: bool) -> list[Subject]:
    """The flow as it is set; and in fp32, unless that is the same."""
    flow = headrace(settings)
    fp32 = {"HEADRACE_MODEL__RUNTIME": "onnxruntime", "HEADRACE_MODEL__PRECISION": "fp32"}
    slower = replace(
        flow,
        name=FLOW_FP32,
        title="Headrace, fp32",
        part=_FP32_SHARE,
        steady=False,
        settings={**settings, **fp32},
    )
    return [flow] if same else [flow, slower]


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
        padded=sum(one.padded for one in passes),
    )


def _trial(kind: str, processes: int, subject: Subject, number: int, drained: Drain) -> Trial:
    wall_s = drained.topic_s or drained.table_s
    assert wall_s is not None, f"{subject.name} writes neither a topic nor a table"
    return Trial(
        kind,
        processes,
        subject.name,
        number,
        docs=drained.docs,
        wall_s=wall_s,
        cpu_s=drained.cpu_s,
        table_s=drained.table_s,
        broker_cpu_s=drained.broker_cpu_s,
        peak_mib=drained.peak_mib,
        shares=drained.shares,
        threads=dict(drained.threads),
    )
