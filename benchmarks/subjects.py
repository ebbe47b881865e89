"""Who is measured: the flow, and what people use instead."""

from __future__ import annotations

import json
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, Self

from benchmarks.rivals.job import Job
from benchmarks.watch import ProgressWatch, RowsWatch
from harness.flow import Flow
from harness.process import HOST, ROOT, HarnessError, Processes
from headrace.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.watch import TableWatch

__all__ = [
    "FLOW",
    "FLOW_FP32",
    "RIVALS",
    "Headrace",
    "Place",
    "Program",
    "Rival",
    "Subject",
    "chosen",
    "headrace",
    "quantize",
    "rival_python",
    "rival_versions",
]

FLOW: Final = "headrace"
FLOW_FP32: Final = "headrace-fp32"

_ENVIRONMENTS: Final = ROOT / "build" / "rivals"
_GRACE_S: Final = 5.0
_VERSIONS: Final = (
    "import json; from importlib.metadata import distributions; "
    "print(json.dumps({one.name: one.version for one in distributions()}))"
)
_TOLD: Final = (
    *("bytewax", "cocoindex", "quixstreams", "confluent-kafka", "lancedb"),
    *("sentence-transformers", "optimum-onnx", "transformers", "onnxruntime"),
)


@dataclass(frozen=True, slots=True)
class Place:
    """What a subject has to itself.

    Attributes:
        bootstrap_servers: The broker.
        name: Of its consumer group.
        source: Topic of documents.
        target: Topic of vectors.
        dead: Topic of dead letters.
        folder: For all its files.
        port: Where its metrics are served; its processes' numbers are added.
    """

    bootstrap_servers: str
    name: str
    source: str
    target: str
    dead: str
    folder: Path
    port: int

    @property
    def tables(self) -> Path:
        """Folder of LanceDB tables."""
        return self.folder / "lancedb"

    @property
    def table(self) -> Path:
        """The table's own folder."""
        return self.tables / "documents.lance"


class Started(Protocol):
    """Processes that run; as a context manager they are started on entry, ended on exit."""

    log: Path

    @property
    def alive(self) -> bool:
        """Whether all of them run."""

    @property
    def pids(self) -> list[int]:
        """Their process ids."""

    @property
    def exit_codes(self) -> list[int | None]:
        """Of each; None while it runs."""

    def __enter__(self) -> object: ...

    def __exit__(self, *error: object) -> None: ...


@dataclass(frozen=True)
class Subject(ABC):
    """Something that reads documents and writes vectors.

    Attributes:
        name: In options and figures.
        title: In reports.
        guarantee: What a crash may do to its outputs.
        processes: The numbers of processes with which it is measured.
        part: The share of the texts that it is given for a backlog.
        steady: Whether it is measured under steady loads, too.
        to_topic: Whether it writes a topic.
        to_table: Whether it writes a table.
        once: Whether a document that comes twice is an error.
        grouped: Whether its processes share work as a consumer group.
        metered: Whether it serves Headrace's metrics.
    """

    name: str
    title: str
    guarantee: str
    processes: tuple[int, ...] = (1,)
    part: float = 1.0
    steady: bool = True
    to_topic: bool = True
    to_table: bool = True
    once: bool = False
    grouped: bool = False
    metered: bool = False

    @abstractmethod
    def at(self, place: Place, processes: int) -> Started:
        """So many processes of it, not started yet."""

    @abstractmethod
    def watch(self, place: Place, check: Callable[[], None]) -> TableWatch:
        """What sees its documents in its table."""


@dataclass(frozen=True)
class Headrace(Subject):
    """`flows.embed`, with everything on.

    Attributes:
        settings: As environment variables.
    """

    settings: Mapping[str, str] = field(default_factory=dict)

    def at(self, place: Place, processes: int) -> Started:
        """So many processes of it, not started yet."""
        own = {
            "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": place.bootstrap_servers,
            "HEADRACE_KAFKA__APPLICATION_ID": place.name,
            "HEADRACE_SOURCE__TOPICS": place.source,
            "HEADRACE_EMBEDDINGS__TOPIC": place.target,
            "HEADRACE_DEAD_LETTERS__TOPIC": place.dead,
            "HEADRACE_TABLE__URI": str(place.tables),
            "HEADRACE_RECOVERY__SUSPECTS": str(place.folder / "suspects"),
            "HEADRACE_METRICS__ADDRESS": f"{HOST}:{place.port}",
        }
        return Flow(
            {**own, **self.settings},
            processes=processes,
            recovery=place.folder / "recovery",
            log=place.folder / "log",
        )

    def watch(self, place: Place, check: Callable[[], None]) -> TableWatch:
        """What sees its documents in its table."""
        return ProgressWatch(place.table, check, place.source)


@dataclass(frozen=True)
class Rival(Subject):
    """A program of `benchmarks.rivals`.

    Attributes:
        module: Its own.
        backend: One of `benchmarks.rivals.job.BACKENDS`.
        model: A hub id or a folder that sentence-transformers loads.
        environment: Which of the rivals' environments has what it needs.
        python: Another interpreter than that environment's.
    """

    # It takes several times as long for a text, so it gets fewer of them, of the same lengths.
    part: float = 1 / 8
    module: str = ""
    backend: str = "onnx"
    model: str = ""
    environment: str = "common"
    python: str | Path = ""

    def at(self, place: Place, processes: int) -> Started:
        """So many processes of it, not started yet."""
        jobs = [
            Job(
                place.bootstrap_servers,
                place.source,
                place.target,
                place.name,
                str(place.tables),
                str(place.folder / "own"),
                self.model,
                self.backend,
                process=number,
            )
            for number in range(processes)
        ]
        (place.folder / "own").mkdir(parents=True)
        python = self.python or rival_python(self.environment)
        command = [python, "-m", f"benchmarks.rivals.{self.module}"]
        return Program([[*command, job.told()] for job in jobs], place.folder / "log")

    def watch(self, place: Place, check: Callable[[], None]) -> TableWatch:
        """What sees its documents in its table."""
        return RowsWatch(place.table, check)


RIVALS: Final = (
    Rival(
        "loop",
        "hand-written loop",
        "at least once",
        processes=(1, 2),
        grouped=True,
        module="loop",
    ),
    Rival(
        "loop-int8",
        "hand-written loop, int8",
        "at least once",
        grouped=True,
        module="loop",
        backend="onnx-int8",
    ),
    Rival(
        "quix",
        "Quix Streams",
        "exactly once, topic only",
        to_table=False,
        grouped=True,
        module="quix",
        environment="quix",
    ),
    Rival(
        "stock",
        "Bytewax, stock connectors",
        "at least once, topic only",
        to_table=False,
        module="stock",
    ),
    Rival(
        "cocoindex",
        "CocoIndex",
        "at least once",
        part=1 / 32,
        grouped=True,
        module="coco",
    ),
)
"""All of them, without a model yet."""


class Program(Processes):
    """Processes that do the same, each from a command line of its own.

    Args:
        commands: One for each.
        log: Where all that they print goes.
    """

    def __init__(self, commands: Sequence[Sequence[str | Path]], log: Path) -> None:
        super().__init__(log)
        self._commands = commands

    def __enter__(self) -> Self:
        self._run(self._commands, {"HF_HUB_OFFLINE": "1"})
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate(_GRACE_S)


def headrace(settings: Mapping[str, str]) -> Headrace:
    """The flow.

    Args:
        settings: Of model and batches, as environment variables.
    """
    return Headrace(
        FLOW,
        "Headrace",
        "exactly once",
        processes=(1, 2),
        once=True,
        metered=True,
        settings=settings,
    )


def chosen(names: str) -> list[Rival]:
    """The rivals of a list with commas between; `all` or `none` of them.

    Raises:
        UsageError: There is no such rival.
    """
    known = {one.name: one for one in RIVALS}
    if names in ("all", "none"):
        return list(RIVALS) if names == "all" else []
    for name in names.split(","):
        if name not in known:
            raise UsageError(f"--rivals: {name!r}: must be all, none or of {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names.split(","))]


def rival_python(environment: str) -> Path:
    """An interpreter of the rivals.

    Raises:
        HarnessError: It is not installed.
    """
    python = _ENVIRONMENTS / environment / "bin" / "python"
    if not python.exists():
        raise HarnessError(
            f"{python.relative_to(ROOT)}: the rivals are not installed; run them by `make bench`, "
            "or leave them out: --rivals none"
        )
    return python


def rival_versions(rivals: Iterable[Rival]) -> dict[str, dict[str, str]]:
    """The versions of what rivals run on, for each of their environments.

    Raises:
        HarnessError: One is not installed.
    """
    found: dict[str, dict[str, str]] = {}
    for environment in dict.fromkeys(one.environment for one in rivals):
        installed = json.loads(_in(environment, "-c", _VERSIONS))
        found[environment] = {name: installed[name] for name in _TOLD if name in installed}
    return found


def quantize(folder: str, environment: str) -> None:
    """Adds an int8 graph to a model's folder, as sentence-transformers makes it.

    Raises:
        HarnessError: It could not be made.
    """
    _in(environment, "-m", "benchmarks.rivals.model", folder)


def _in(environment: str, *arguments: str) -> str:
    """What a rival's interpreter prints."""
    done = subprocess.run(
        (rival_python(environment), *arguments),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise HarnessError(f"rivals: {' '.join(arguments[:2])}: {last}")
    return done.stdout
