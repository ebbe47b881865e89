"""Errors of the command line; the tree stands in `headrace.errors`."""

from headrace.errors import HeadraceError

__all__ = ["CommandError"]


class CommandError(HeadraceError):
    """A command that did not do all it was asked for: a bad line, a record that can't be sent."""
