"""Where things are in a record: records of any shape become documents.

A mapping is compiled once, and then costs some microseconds a record.
"""

from operators.mapping.decoder import MappedDecoder
from operators.mapping.plan import Field, Plan

__all__ = ["Field", "MappedDecoder", "Plan"]
