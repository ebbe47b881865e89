"""Batches of a lane join without a seam; a sink that sees one torn must not go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sinks.errors import SinkError

if TYPE_CHECKING:
    from operators.records import OutcomeBatch

__all__ = ["check_seam"]


def check_seam(batch: OutcomeBatch, expected: int | None) -> None:
    """Check that a batch starts where the one before it ended.

    Args:
        batch: The batch.
        expected: Where its lane stood; None at the lane's first batch.

    Raises:
        SinkError: It does not: records were lost or repeated on the way, which is a fault of
            Headrace. A restart reads them again.
    """
    if expected not in (None, batch.start):
        raise SinkError(
            f"{batch.lane}: a batch starts at {batch.start}, after one that ended at {expected}; "
            "this is a fault of Headrace: report it, and start again to go on"
        )
