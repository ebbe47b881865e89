"""Errors of the sinks; the tree stands in `headrace.errors`."""

from typing import Final

from headrace.errors import HeadraceError, UsageError
from recovery.watchdog import EXIT_STALLED

__all__ = ["SECOND_COPY", "FilterError", "SinkError", "WriterLostError"]

SECOND_COPY: Final = "a second copy of this flow"
"""What the error of a flow names that another one has fenced."""


class SinkError(HeadraceError):
    """Outcomes can't be written: a topic or a table is missing, foreign, full or fenced."""


class WriterLostError(SinkError):
    """The table's writer has ended, or a table is gone: to start again is all there is to do."""

    exit_code = EXIT_STALLED


class FilterError(SinkError):
    """A condition that can't be right, whatever the table holds."""

    exit_code = UsageError.exit_code
