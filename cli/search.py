"""`headrace search`: the documents nearest to some words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from cli.output import emit, say, show_table
from cli.table import existing_store
from flows.parts import encoder_of
from headrace.errors import UsageError
from sinks.errors import SinkError
from sinks.store import one_line

if TYPE_CHECKING:
    import lance
    import numpy as np
    from numpy.typing import NDArray

    from flows.settings import Settings
    from operators.model import Encoder
    from sinks.store import TableStore

__all__ = ["search", "show"]

# The recall of a scan, for a table that has an index.
PROBES: Final = 20
REFINE: Final = 10

WIDEN: Final = 4
"""By how much more rows are asked for when several of those found are of one document."""

SHOWN_CHARACTERS: Final = 400


def search(settings: Settings, words: str, k: int, where: str | None) -> list[dict[str, Any]]:
    """The nearest documents, nearest first: `id`, `score`, `text` and `metadata` of each.

    Args:
        settings: They name the table and the model.
        words: What to look for.
        k: How many documents.
        where: A condition that they meet, in SQL.

    Raises:
        UsageError: The words are none, or the condition can't be read.
        HeadraceError: The table is not there, or holds another model's vectors.
    """
    if not words.strip():
        raise UsageError("WORDS: are empty; say what to look for")
    store = existing_store(settings)
    dataset = store.open()
    if where is not None:
        _check_filter(dataset, where)
    encoder = encoder_of(settings)
    _check_model(store, dataset, encoder)
    vector = encoder.encode_query(words)
    return _nearest(dataset, vector, k, where, tuple(settings.table.columns))


def show(found: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print the documents."""
    if as_json:
        emit(found)
    elif not found:
        say("nothing found")
    else:
        rows = [
            (
                item["score"],
                item["id"],
                item["text"][:SHOWN_CHARACTERS],
                json.dumps(item["metadata"]),
            )
            for item in found
        ]
        show_table(("score", "id", "text", "metadata"), rows, wide="text", cut=True)


def _check_filter(dataset: lance.LanceDataset, where: str) -> None:
    try:
        dataset.scanner(columns=["key"], filter=where, limit=1).explain_plan()
    except (OSError, RuntimeError, ValueError) as error:
        told = one_line(error).removeprefix("Invalid user input: ")
        raise UsageError(f"--filter: {where}: {told}") from error


def _check_model(store: TableStore, dataset: lance.LanceDataset, encoder: Encoder) -> None:
    held = store.fence(dataset)
    if held.fingerprint != encoder.fingerprint:
        raise SinkError(
            f"model.name: {encoder.name} has fingerprint {encoder.fingerprint}, but table "
            f"{store.name} holds vectors of {held.model} ({held.fingerprint}); set that model "
            "again, or another table.name"
        )


def _nearest(
    dataset: lance.LanceDataset,
    vector: NDArray[np.float32],
    k: int,
    where: str | None,
    columns: tuple[str, ...],
) -> list[dict[str, Any]]:
    """The k nearest documents; of one with several chunks near, the nearest."""
    rows = k
    while True:
        found = _rows(dataset, vector, rows, where, columns)
        best: dict[str, dict[str, Any]] = {}
        for row in found:
            best.setdefault(row["id"], row)
        if len(best) >= k or len(found) < rows:
            return [_item(row, columns) for row in list(best.values())[:k]]
        rows *= WIDEN


def _rows(
    dataset: lance.LanceDataset,
    vector: NDArray[np.float32],
    rows: int,
    where: str | None,
    columns: tuple[str, ...],
) -> list[dict[str, Any]]:
    nearest: dict[str, Any] = {"column": "vector", "q": vector, "k": rows, "metric": "cosine"}
    if any(index.field_names == ["vector"] for index in dataset.describe_indices()):
        nearest |= {"nprobes": PROBES, "refine_factor": REFINE}
    condition = "NOT deleted" if where is None else f"NOT deleted AND ({where})"
    try:
        table = dataset.to_table(
            columns=["id", "text", "metadata", *columns, "_distance"],
            filter=condition,
            nearest=nearest,
            prefilter=True,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise SinkError(f"table.name: can't be searched: {one_line(error)}") from error
    found: list[dict[str, Any]] = table.sort_by("_distance").to_pylist()
    return found


def _item(row: dict[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    """A row as users see it: its metadata whole again, wherever the table keeps it."""
    typed = {name: row[name] for name in columns if row[name] is not None}
    return {
        "id": row["id"],
        "score": round(1 - row["_distance"], 6),
        "text": row["text"],
        "metadata": {**json.loads(row["metadata"] or "{}"), **typed},
    }
