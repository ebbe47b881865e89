"""Fuzz each target for a stated time: `python -m tests.fuzz [--seconds N] [TARGET …]`."""

from __future__ import annotations

import argparse
import faulthandler
import sys
import time

from tests.fuzz.loop import fuzz
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Run the named targets, or all; 1 if anything went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument("--seed", type=int, help="the same inputs again; the time unless given")
    given = parser.parse_args()
    unknown = set(given.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    faulthandler.enable()
    start = int(time.time()) if given.seed is None else given.seed
    print(f"seed {start}", flush=True)
    crashed = False
    for name in given.targets or TARGETS:
        found = fuzz(TARGETS[name], given.seconds, start)
        crashed |= bool(found.crashes)
        print(found, flush=True)
        for crash in found.crashes.values():
            print(crash.trace, file=sys.stderr, flush=True)
    return int(crashed)


if __name__ == "__main__":
    sys.exit(main())
