"""The real flow on a table that can be stopped: commits wait while the file `STALL` names exists.

As a network share that hangs does, it hangs inside the commit, and the watchdog sees it so.
"""

import os
import time
from pathlib import Path
from typing import Any, Final

from bytewax.dataflow import Dataflow

from flows import embed
from sinks.writer import TableWriter

__all__ = ["STALL", "flow"]

STALL: Final = "STALL_TABLE_WHILE"
"""The environment variable with the file's path."""


def flow() -> Dataflow:
    """The dataflow, its table's commits held up by the file."""
    gate = Path(os.environ[STALL])
    commit = TableWriter.commit

    def held(self: TableWriter, *given: Any, **named: Any) -> Any:  # noqa: ANN401 - as the real one
        while gate.exists():
            time.sleep(0.05)
        return commit(self, *given, **named)

    TableWriter.commit = held  # type: ignore[method-assign]  # what makes it stoppable
    return embed.flow()
