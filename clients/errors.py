"""Errors of the broker; the tree stands in `headrace.errors`."""

from headrace.errors import HeadraceError

__all__ = ["BrokerError"]


class BrokerError(HeadraceError):
    """The broker can't be reached, or lacks or refuses something."""
