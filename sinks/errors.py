"""Errors of the sinks; the tree stands in `headrace.errors`."""

from headrace.errors import HeadraceError

__all__ = ["SinkError"]


class SinkError(HeadraceError):
    """Outcomes can't be written: a topic or a table is missing, foreign, full or fenced."""
