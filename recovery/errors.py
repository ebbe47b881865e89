"""Errors of recovery; the tree stands in `headrace.errors`."""

from headrace.errors import HeadraceError

__all__ = ["RecoveryError"]


class RecoveryError(HeadraceError):
    """A place to go on from is missing or does not fit this flow."""
