"""Errors of the sources; the tree stands in `headrace.errors`."""

from headrace.errors import HeadraceError

__all__ = ["SourceError"]


class SourceError(HeadraceError):
    """A source topic is missing, or can no longer be read from where the flow stands."""
