"""A control: the real flow with one guard off, to show that the audit can fail.

The topic sink no longer drops what it had committed when it started, so a replay for the table's
sake writes those outcomes a second time. The table is made slow, so that there is such a replay
whenever the flow is killed.
"""

from bytewax.dataflow import Dataflow

from flows import embed
from operators.records import OutcomeBatch
from sinks.table import TablePartitionSink
from sinks.topic import LaneWriter

_REST_S = 1.0


def flow() -> Dataflow:
    """The dataflow without the topic sink's floor."""

    def write(self: LaneWriter, batch: OutcomeBatch) -> None:
        self._committer.put(batch)

    def rest(self: TablePartitionSink, took_s: float) -> float:  # noqa: ARG001 - its signature
        return _REST_S

    LaneWriter.write = write  # type: ignore[method-assign]  # the guard that is off
    TablePartitionSink._rest = rest  # type: ignore[method-assign]  # noqa: SLF001 - slow on purpose
    return embed.flow()
