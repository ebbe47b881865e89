"""Token rows of unlike lengths as one array."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["pad"]


def pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and their mask, int64 [rows, longest] each, padded on the right."""
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    kept = np.arange(max(1, int(lengths.max(initial=0)))) < lengths[:, None]
    input_ids = np.full(kept.shape, pad_id, dtype=np.int64)
    input_ids[kept] = np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum()))
    return input_ids, kept.astype(np.int64)
