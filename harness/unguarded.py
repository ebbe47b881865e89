"""A control: the real flow with one guard off, to show that the audit can fail.

The topic sink no longer drops what it had committed when it started, so a replay for the table's
sake writes those outcomes a second time.
"""

from bytewax.dataflow import Dataflow

from flows import embed
from operators.records import OutcomeBatch
from sinks.topic import LaneWriter


def flow() -> Dataflow:
    """The dataflow without the topic sink's floor."""

    def write(self: LaneWriter, batch: OutcomeBatch) -> None:
        self._committer.put(batch)

    LaneWriter.write = write  # type: ignore[method-assign]  # the guard that is off
    return embed.flow()
