"""Where records come from."""

from sources.errors import SourceError

__all__ = ["SourceError"]
