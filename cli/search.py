"""`headrace search`: the documents nearest to some words."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from cli.output import emit, say, show_table
from flows.access import current, encoder_of, existing_store
from headrace.errors import UsageError
from sinks.errors import FilterError
from sinks.search import Query, TableReader, check_model, find

if TYPE_CHECKING:
    from flows.settings import Settings

__all__ = ["search", "show"]

SHOWN_CHARACTERS: Final = 400


def search(settings: Settings, words: str, k: int, where: str | None) -> list[dict[str, Any]]:
    """The nearest documents, nearest first: `id`, `score`, `text`, `metadata`, `chunk` of each.

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
    settings = current(settings)
    reader = TableReader(existing_store(settings))
    encoder = encoder_of(settings)
    check_model(reader.fence(), reader.store.name, encoder.name, encoder.fingerprint)
    query = Query(k, vector=encoder.encode_query(words), where=where)
    try:
        found = find(reader.latest(), query, settings.columns)
    except FilterError as error:
        raise UsageError(f"--filter: {error}") from error
    return [asdict(item) for item in found]


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
                _place(item["chunk"]),
                item["chunk"]["text"][:SHOWN_CHARACTERS],
                json.dumps(item["metadata"]),
            )
            for item in found
        ]
        columns = ("score", "id", "characters", "text", "metadata")
        show_table(columns, rows, wide="text", cut=True)


def _place(chunk: dict[str, Any]) -> str | None:
    """The range of characters of a document's best chunk."""
    return None if chunk["start"] is None else f"{chunk['start']}-{chunk['end']}"
