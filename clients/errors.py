"""Errors of the broker and the schema registry; the tree stands in `headrace.errors`."""

from headrace.errors import HeadraceError

__all__ = ["BrokerError", "RegistryError"]


class BrokerError(HeadraceError):
    """The broker can't be reached, or lacks or refuses something."""


class RegistryError(HeadraceError):
    """The schema registry can't be reached, or lacks or refuses something."""
