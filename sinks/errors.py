"""Errors of the sinks; the tree stands in `headrace.errors`."""

from headrace.errors import HeadraceError
from recovery.watchdog import EXIT_STALLED

__all__ = ["SinkError", "WriterLostError"]


class SinkError(HeadraceError):
    """Outcomes can't be written: a topic or a table is missing, foreign, full or fenced."""


class WriterLostError(SinkError):
    """The process that writes the table has ended unasked; to start again is all there is to do."""

    exit_code = EXIT_STALLED
