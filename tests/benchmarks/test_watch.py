from __future__ import annotations

from typing import TYPE_CHECKING

import lancedb
import pyarrow as pa
import pytest

from benchmarks.load import Written
from benchmarks.watch import RowsWatch
from harness.process import HarnessError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def rows(numbers: Iterable[int]) -> pa.Table:
    """Rows of documents."""
    return pa.table({"id": [f"document-{number}" for number in numbers]})


def written(number: int) -> Written:
    """A document as the load generator has sent it."""
    return Written(b"document-%d" % number, 0, number, 0.0)


def test_rows_are_seen_once_they_are_committed(tmp_path: Path) -> None:
    """Rows of several commits are seen, also after compaction; a missing one is an error."""
    table = lancedb.connect(tmp_path).create_table("documents", rows(range(3)))
    with RowsWatch(tmp_path / "documents.lance", lambda: None) as watch:
        first = watch.wait_for([written(0), written(2)], 10)
        table.merge_insert("id").when_not_matched_insert_all().execute(rows((2, 3, 4)))
        second = watch.wait_for([written(4), written(3)], 10)
        table.optimize()
        assert watch.seen_at(written(2)) == first
        assert watch.seen_at(written(3)) == second > first
        with pytest.raises(HarnessError, match="1 documents not in time"):
            watch.wait_for([written(1), written(9)], 0.2)
