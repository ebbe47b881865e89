"""What goes wrong with models: told in one line each."""

from headrace.errors import HeadraceError

__all__ = ["CacheError", "ModelError"]


class ModelError(HeadraceError):
    """A model that can't be found, built, read or run as asked.

    The text is one line: the setting and its value, what is wrong, and the way out.
    """


class CacheError(ModelError):
    """A cache folder that can't be written, or that another process won't let go of."""
