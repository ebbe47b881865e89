"""Where things are in a record: records of any shape become documents.

A mapping is compiled once, and then costs some microseconds a record.
"""

from operators.mapping.changes import ChangeDecoder
from operators.mapping.decoder import MappedDecoder
from operators.mapping.plan import Field, Plan

__all__ = ["ChangeDecoder", "Field", "MappedDecoder", "Plan"]
