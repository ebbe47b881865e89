"""What telemetry and mappings cost: the same backlog drained with it and without, in turns.

    python -m benchmarks.overhead [--docs N] [--rounds N] [--variants NAME,NAME,...]

Each drain is of a flow that was just started, on topics and a table of its own. Prints for each
variant its documents a second and its CPU time, each as a share of the first one's in the same
round: the median of the rounds, and the least and the most. With one variant named twice it
prints the spread of the measurement itself. Every document comes with a `traceparent`, of which
one in a hundred asks to be followed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import urllib.request
from collections import defaultdict
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks.collector import Collector
from benchmarks.load import Generator
from benchmarks.remote import Remote
from benchmarks.rig import Rig, passed_on
from benchmarks.subjects import Headrace
from benchmarks.texts import gather, take
from harness.broker import Broker
from headrace.errors import HeadraceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.rig import Drain

__all__ = ["VARIANTS", "Variant", "main", "measure", "told"]

_SCRAPE_EVERY_S: Final = 1.0
_WARM: Final = 200
_SAMPLED: Final = 0.01


@dataclass(frozen=True)
class Variant:
    """A way to run the flow.

    Attributes:
        name: In options and reports.
        settings: As environment variables.
        scraped: Whether its metrics are asked for once a second.
        traced: Whether it sends its spans to a collector.
    """

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    scraped: bool = False
    traced: bool = False


_NO_METRICS: Final = {"HEADRACE_METRICS__ADDRESS": ""}

_MAPPED: Final = {
    "HEADRACE_SOURCE__TEXT": "{/text}{/metadata/none?}",
    "HEADRACE_SOURCE__METADATA": '{"length": {"at": "/none", "type": "int64"}, "all": "/metadata"}',
    "HEADRACE_SOURCE__TIMESTAMP": "/timestamp?",
    "HEADRACE_SOURCE__DELETE_WHEN": "none == 'gone'",
    "HEADRACE_SOURCE__FILTER": "none != 'draft' && text",
}
"""The same records, read by a mapping that asks for something of each kind."""

VARIANTS: Final = (
    Variant("off", _NO_METRICS),
    Variant("metrics", scraped=True),
    Variant("traces", _NO_METRICS, traced=True),
    Variant("mapping", _NO_METRICS | _MAPPED),
    Variant("markup", _NO_METRICS | _MAPPED | {"HEADRACE_SOURCE__MARKUP": "markdown"}),
)
"""What can be compared; the first is what the others are compared with."""

USUAL: Final = VARIANTS[:3]
"""What is compared unless the command says."""


def measure(
    variants: Sequence[Variant], docs: int, rounds: int, say: Callable[[str], object]
) -> list[list[Drain]]:
    """Drains the same backlog with each variant, in turns.

    Args:
        variants: At least one.
        docs: Of the backlog.
        rounds: Of all variants; every other one goes backwards.
        say: Takes what is found, round by round.

    Returns:
        Of each round, the drains in the order of the variants.

    Raises:
        HarnessError: A flow ended, or did not do in time what it was given.
    """
    pool = gather().short
    warm, backlog = take(pool, 0, _WARM), take(pool, _WARM, docs)
    found: list[list[Drain]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-overhead-")))
        broker = stack.enter_context(Broker(folder=folder / "kafka"))
        loader = stack.enter_context(Remote(Generator, broker.bootstrap_servers, _SAMPLED))
        spans = stack.enter_context(Remote(_Spans))
        traces = {
            "HEADRACE_TRACES__ENDPOINT": spans.call("endpoint"),
            "HEADRACE_TRACES__SAMPLE": f"{_SAMPLED}",
        }
        rig, common = Rig(broker, loader, folder), passed_on(os.environ, folder)
        for number in range(rounds):
            order = list(enumerate(variants))
            drains: dict[int, Drain] = {}
            for place, variant in order if number % 2 == 0 else reversed(order):
                own = {**common, **(traces if variant.traced else {})}
                drains[place] = _drained(rig, variant, own, warm, backlog)
            found.append([drains[place] for place, _ in order])
            rates = (f"{v.name} {_rate(drains[i]):,.1f} docs/s" for i, v in order)
            say(f"round {number + 1}: {', '.join(rates)}; {spans.call('count'):,} spans so far")
    return found


def told(variants: Sequence[Variant], rounds: Sequence[Sequence[Drain]]) -> Iterator[str]:
    """A line for each variant behind the first: what it is of the first's."""
    rates, work = defaultdict(list), defaultdict(list)
    for first, *others in rounds:
        for place, drain in enumerate(others, 1):
            rates[place].append(_rate(drain) / _rate(first))
            work[place].append(drain.cpu_s / first.cpu_s)
    for place in rates:
        yield (
            f"{variants[place].name}: {_spread(rates[place])} of the documents a second of "
            f"{variants[0].name}, {_spread(work[place])} of its CPU time, {len(rounds)} rounds"
        )


class _Spans:
    """A collector in this process."""

    def __init__(self) -> None:
        self._collector = Collector().__enter__()

    def endpoint(self) -> str:
        """Where spans are to be sent."""
        return self._collector.endpoint

    def count(self) -> int:
        """How many have come."""
        return len(self._collector.spans)


def _drained(
    rig: Rig,
    variant: Variant,
    common: Mapping[str, str],
    warm: Sequence[str],
    backlog: Sequence[str],
) -> Drain:
    subject = Headrace(
        variant.name, variant.name, "exactly once", settings={**common, **variant.settings}
    )
    with rig.running(subject, 1, warm) as running:
        if not variant.scraped:
            return running.drain(backlog)
        with _scraping(f"http://{running.metrics}/metrics"):
            return running.drain(backlog)


def _rate(drain: Drain) -> float:
    """Documents a second until both outputs had all of them."""
    return drain.docs / max(drain.topic_s or 0.0, drain.table_s or 0.0)


def _spread(shares: Sequence[float]) -> str:
    return f"{median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})"


@contextmanager
def _scraping(url: str) -> Iterator[None]:
    """Ask for the metrics once a second, as Prometheus would."""
    done = threading.Event()

    def scrape() -> None:
        while not done.wait(_SCRAPE_EVERY_S):
            # A port of our own.
            with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
                answer.read()

    thread = threading.Thread(target=scrape, name="scraper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _chosen(names: str) -> list[Variant]:
    known = {variant.name: variant for variant in VARIANTS}
    try:
        return [known[name] for name in names.split(",")]
    except KeyError as error:
        raise UsageError(f"--variants: {error.args[0]}: must be of {', '.join(known)}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--docs", type=int, default=4000, help="of the backlog")
    parser.add_argument("--rounds", type=int, default=5, help="of all variants")
    usual, known = (",".join(one.name for one in some) for some in (USUAL, VARIANTS))
    parser.add_argument("--variants", default=usual, help=f"of {known}; the first is the base")
    given = parser.parse_args(arguments)
    try:
        variants = _chosen(given.variants)
        for line in told(variants, measure(variants, given.docs, given.rounds, print)):
            print(line)
    except HeadraceError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
