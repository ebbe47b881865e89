"""`headrace search`: the documents nearest to some words."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from cli.output import emit, say, show_table
from flows.access import current, encoder_of, existing_store, routed_tables
from headrace.errors import UsageError
from sinks.errors import FilterError, SinkError
from sinks.search import Query, TableReader, check_model, find

if TYPE_CHECKING:
    from collections.abc import Collection

    from flows.settings import Settings
    from sinks.store import TableStore

__all__ = ["search", "show"]

SHOWN_CHARACTERS: Final = 400

NAMED: Final = 10
"""How many of several tables are named where one has to be chosen."""


def search(
    settings: Settings, words: str, k: int, where: str | None, table: str | None
) -> list[dict[str, Any]]:
    """The nearest documents, nearest first: `id`, `score`, `text`, `metadata`, `chunk` of each.

    Args:
        settings: They name the table and the model.
        words: What to look for.
        k: How many documents.
        where: A condition that they meet, in SQL.
        table: Which table; may be None where there is but one.

    Raises:
        UsageError: The words are none, or the condition can't be read, or it is not said which
            table.
        HeadraceError: The table is not there, or holds another model's vectors.
    """
    if not words.strip():
        raise UsageError("WORDS: are empty; say what to look for")
    if settings.table.routed:
        store = _one_of_several(settings, table)
    else:
        _check_name(settings, table)
        settings = current(settings)
        store = existing_store(settings)
    reader = TableReader(store)
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


def _check_name(settings: Settings, table: str | None) -> None:
    """See that it is the one table which is meant."""
    name = settings.table.name
    if table not in {None, name}:
        raise UsageError(f"--table: {table}: the only table is {name}, as table.name says")


def _one_of_several(settings: Settings, table: str | None) -> TableStore:
    """The table that is meant, where each record names one."""
    several = routed_tables(settings)
    if not several.exists():
        raise SinkError(
            f"table.name: {several.name}: there are no such tables in {several.uri}; the flow "
            "makes them: python -m bytewax.run flows.embed"
        )
    if table is None:
        raise UsageError(f"--table: say which table of {several.name}; {_told(several.tables())}")
    store = several.named(table)
    if not store.exists():
        # Its name is written first, and stays where the table was deleted.
        raise SinkError(
            f"--table: {table}: is not in {several.uri}; the flow makes it at its next start: "
            "python -m bytewax.run flows.embed"
        )
    return store


def _told(names: Collection[str]) -> str:
    """Which tables there are, for a person."""
    if not names:
        return "there is none yet"
    first = ", ".join(sorted(names)[:NAMED])
    if len(names) <= NAMED:
        return f"there {'is' if len(names) == 1 else 'are'} {first}"
    return f"the first of {len(names)} are {first}"


def _place(chunk: dict[str, Any]) -> str | None:
    """The range of characters of a document's best chunk."""
    return None if chunk["start"] is None else f"{chunk['start']}-{chunk['end']}"
