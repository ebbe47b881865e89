"""Samples of topics, for the tests of each step."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from operators.guess.fields import Field, fields_of
from operators.guess.reading import Row
from operators.records import Lane, RecordBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operators.records import Headers

TIME_MS = 1_780_000_000_000


def batch(
    records: Sequence[tuple[bytes | None, bytes | None]], headers: Headers = ()
) -> RecordBatch:
    """Records as the source has them."""
    count = len(records)
    return RecordBatch(
        Lane("topic", 0),
        0,
        count,
        tuple(range(count)),
        (TIME_MS,) * count,
        tuple(key for key, _ in records),
        tuple(value for _, value in records),
        (headers,) * count,
        size=1,
    )


def json_batch(*values: Any, keys: Sequence[bytes | None] | None = None) -> RecordBatch:
    """Records with JSON in them; None is no value."""
    written = [None if value is None else json.dumps(value).encode() for value in values]
    return batch(list(zip(keys or [None] * len(values), written, strict=True)))


def rows_of(*values: dict[str, Any], keys: Sequence[bytes | None] | None = None) -> list[Row]:
    """Objects under keys."""
    return [
        Row(key, value) for key, value in zip(keys or [None] * len(values), values, strict=True)
    ]


def field(name: str, *values: Any) -> Field:
    """What is in one field of several records."""
    return fields_of([{name: value} for value in values])[0]
