"""The long fault runs: `make soak`.

Prints one line a scenario, and exits 1 if anything was lost, doubled, out of order or wrong, or if
the control with its guard off was found clean.

    python -m harness.soak [SCENARIO ...] [--records N] [--seed N] [--minutes N] [--older REV]
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from harness import hazards
from harness.broker import Broker
from harness.cdc import cdc
from harness.faults import Trial, TrialResult
from harness.steady import steady
from harness.texts import docstrings
from harness.web import WebReport, kill_servers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["SCENARIOS", "main"]

log = structlog.get_logger(__name__)

KILLS: Final = 20
_OWN: Final = "headrace: "
EVENTS: Final = 100
"""Events that a server accepts before it is killed."""


def workers(trial: Trial) -> TrialResult:
    """Two workers: 20 kills, some of the writer alone, a lost recovery folder, a third worker."""
    with trial:
        for number in range(KILLS):
            if number == KILLS // 3:
                trial.lose_recovery()
            elif number == 2 * KILLS // 3:
                trial.rescale(workers=3)
            else:
                _kill(trial, number)
        return trial.finish()


def processes(trial: Trial) -> TrialResult:
    """Two processes of one worker: one, both, or the table's writer alone, killed 20 times."""
    trial.workers, trial.processes = 1, 2
    with trial:
        for number in range(KILLS):
            if number % 4 == 0:
                trial.kill_between_commits("table" if number % 8 else "topic")
            elif number % 4 == 1:
                trial.kill_writer()
            else:
                trial.kill_at_random()
        return trial.finish()


def broker(trial: Trial) -> TrialResult:
    """The broker killed with -9 five times and started again under load."""
    with trial:
        for number in range(5):
            trial.kill_broker(away_s=1.0 + 2.0 * number)
        return trial.finish()


def copies(trial: Trial) -> TrialResult:
    """A second copy started by mistake, three times; each time the first must end."""
    with trial:
        for _ in range(3):
            codes = trial.start_second_copy()
            if 0 in codes:
                trial.disturbances.append(f"the first copy ended with {codes}")
        return trial.finish()


def tenants(trial: Trial) -> TrialResult:
    """Documents in 20 tables, moving among them: 20 kills, of the writer alone, a second copy."""
    trial.tenants = 20
    with trial:
        for number in range(KILLS):
            if number % 10 == 7:
                trial.start_second_copy()
            else:
                _kill(trial, number)
        return trial.finish()


def server(trial: Trial) -> WebReport:
    """The HTTP ingest killed 20 times under load, its events embedded by a flow."""
    return kill_servers(trial.broker, trial.folder, trial.texts, KILLS, EVENTS)


def control(trial: Trial) -> TrialResult:
    """The topic sink's guard off: the audit must find duplicates."""
    trial.module = "harness.unguarded"
    with trial:
        for _ in range(5):
            trial.kill_between_commits("topic")
        return trial.finish()


SCENARIOS: Final[dict[str, Callable[[Trial], TrialResult | WebReport]]] = {
    "workers": workers,
    "processes": processes,
    "broker": broker,
    "copies": copies,
    "tenants": tenants,
    "server": server,
    "control": control,
}

FURTHER: Final[dict[str, Callable[[Trial], TrialResult | WebReport]]] = {
    "hang": hazards.hang,
    "table": hazards.table_lost,
    "disk": hazards.disk,
    "clock": hazards.clock,
    "bucket": hazards.bucket,
    "partition": hazards.partition,
    "coordinator": hazards.coordinator,
    "upgrade": hazards.upgrade,
    "steady": steady,
    "cdc": cdc,
}
"""Run only where they are named: they take long, or need more of the machine."""

ALL: Final = SCENARIOS | FURTHER


def run(name: str, texts: Sequence[str], given: argparse.Namespace) -> bool:
    """Run one scenario on a broker of its own; whether it came out as it must."""
    folder = Path(tempfile.mkdtemp(prefix=f"headrace-soak-{name}-"))
    started = time.monotonic()
    with Broker(folder=folder / "kafka") as running:
        trial = Trial(
            running,
            folder,
            texts,
            given.records,
            workers=2,
            seed=given.seed,
            rate=given.rate,
            minutes=given.minutes,
            older=given.older,
        )
        result = ALL[name](trial)
    good = result.clean
    if name == "control":
        good = isinstance(result, TrialResult) and bool(result.report.duplicates)
    for line in result.disturbances:
        sys.stdout.write(f"  {line}\n")
    for line, times in _ends(folder).most_common(10):
        sys.stdout.write(f"  {times} times: {line}\n")
    verdict = "as it must be" if good else "WRONG"
    seconds = time.monotonic() - started
    sys.stdout.write(f"{name}: {verdict} after {seconds:.0f} s: {result}\n")
    sys.stdout.flush()
    if good:
        shutil.rmtree(folder)
    else:
        sys.stdout.write(f"  kept for a look: {folder}\n")
    return good


def _kill(trial: Trial, number: int) -> None:
    """One of several kills: between two commits, of the table's writer alone, at random."""
    if number % 3 == 0:
        trial.kill_between_commits("table" if number % 2 else "topic")
    elif number % 3 == 1:
        trial.kill_writer()
    else:
        trial.kill_at_random()


def _ends(folder: Path) -> Counter[str]:
    """Why flows ended, by their own last lines, numbers aside."""
    found: Counter[str] = Counter()
    for log_file in folder.rglob("flow.log"):
        lines = log_file.read_text(errors="replace").splitlines()
        found.update(re.sub(r"\d+", "N", one)[:300] for one in lines if one.startswith(_OWN))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named scenarios, or all."""
    parser = argparse.ArgumentParser(prog="python -m harness.soak", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(ALL))
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=300.0, help="records written a second")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long steady takes")
    parser.add_argument("--older", default="HEAD^", help="the commit that upgrade begins with")
    given = parser.parse_args(arguments)
    unknown = set(given.scenarios) - set(ALL)
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    texts = [found.text.splitlines()[0] for found in docstrings(3000)]
    names = given.scenarios or list(SCENARIOS)
    return int(False in [run(name, texts, given) for name in names])


if __name__ == "__main__":
    sys.exit(main())
