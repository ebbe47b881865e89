"""The real flow on a table that can be stopped: commits wait while the file `STALL` names exists.

As a full network share does, it hangs inside the commit; the watchdog sees it as it would see that.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bytewax.dataflow import Dataflow

from flows import embed
from sinks.schema import TableRow
from sinks.writer import TableWriter

__all__ = ["STALL", "flow"]

STALL: Final = "STALL_TABLE_WHILE"
"""The environment variable with the file's path."""


def flow() -> Dataflow:
    """The dataflow, its table's merges held up by the file."""
    gate = Path(os.environ[STALL])
    merge = TableWriter._merge  # noqa: SLF001 - the step that is held up

    def held(self: TableWriter, heads: list[TableRow], progress: Mapping[str, int]) -> None:
        while gate.exists():
            time.sleep(0.05)
        merge(self, heads, progress)

    TableWriter._merge = held  # type: ignore[method-assign]  # noqa: SLF001
    return embed.flow()
