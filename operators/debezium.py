"""Change events as Debezium writes them: what becomes of a row, and the id that its key is.

An event is an envelope with `op` and, but for deletions, the row as it is `after` the change. In
JSON it may stand beside its schema, as `{"schema": …, "payload": …}`; in Avro it never does. What
each event asks for:

| `op` | of | becomes |
|---|---|---|
| `c`, `r`, `u` | a row that was inserted, read by a snapshot, or updated | `UPSERT` of `after` |
| `d` | a row that was deleted | `DELETE` |
| `t` | a table that was truncated | rejected: it does not say which rows there were |
| `m` | a message that was written into the log | `SKIP` |

So do heartbeats, the borders of transactions and changes of schema, which have no `op`. A primary
key that changes is a deletion under the old key and an insertion under the new one: two events.

PostgreSQL leaves large values that an update did not touch out of its log, one of the primary key
included, and Debezium puts a placeholder where they would be. Such a row is a `PartialRow`: to ask
it for one of them is an error, so that no placeholder is ever taken for what the column holds.
"""

from __future__ import annotations

import base64
from hashlib import md5
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn
from uuid import UUID

import orjson

from operators.judging import (
    MAX_ID_BYTES,
    SHOWN_CHARACTERS,
    Rejected,
    as_object,
    kind_of,
    reject,
    shown,
)
from operators.records import Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["PLACEHOLDER", "Change", "PartialRow", "Unavailable", "change", "identity"]

PLACEHOLDER: Final = "__debezium_unavailable_value"
"""What stands for a value that the event does not carry (`unavailable.value.placeholder`)."""

_MAP: Final = {PLACEHOLDER: PLACEHOLDER}  # of an hstore
_TEXTS: Final = (
    PLACEHOLDER,
    base64.b64encode(PLACEHOLDER.encode()).decode(),
    orjson.dumps(_MAP).decode(),
)
_UUID: Final = UUID(bytes=md5(PLACEHOLDER.encode(), usedforsecurity=False).digest(), version=3)
_LISTS: Final = ([PLACEHOLDER], list(PLACEHOLDER.encode()), [str(_UUID)])
"""What it looks like in columns of other types: strings, arrays of text, of integers, of UUIDs. In
an array of any other type Debezium says null."""

_ENVELOPE: Final = {"schema", "payload"}
_UPSERTS: Final = ("c", "r", "u")
_PASSED: Final[Collection[frozenset[str]]] = (
    frozenset({"ts_ms"}),  # a heartbeat
    frozenset({"status", "id", "event_count", "data_collections", "ts_ms"}),  # of a transaction
)
"""The fields, all of them, of records that have no `op` and tell of no row."""

_OF_SCHEMA: Final = frozenset({"source", "ddl", "tableChanges"})
"""Some of the fields of a change of schema."""


class Unavailable(Rejected):
    """A value is asked for that the event does not carry."""


class PartialRow(dict[str, Any]):
    """A row of which the event does not carry all columns.

    Args:
        columns: The row, with placeholders.
        missing: The names of the columns that it does not carry.
        known: Whether an earlier event under the same key carried them: not so where the primary
            key has changed.
    """

    def __init__(self, columns: Mapping[str, Any], missing: Collection[str]) -> None:
        # What no encoder takes, where the row is asked for as a whole.
        super().__init__({**columns, **dict.fromkeys(missing, ...)})
        self.missing = frozenset(missing)

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - any JSON value
        if name in self.missing:
            _unavailable(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ANN401
        """The column's value.

        Raises:
            Unavailable: The event does not carry it.
        """
        if name in self.missing:
            _unavailable(name)
        return super().get(name, default)

    def values(self) -> NoReturn:
        """Never: what asks for all asks for those that are missing.

        Raises:
            Unavailable: The event does not carry all.
        """
        _unavailable(*self.missing)

    def items(self) -> NoReturn:
        """Never, as `values`.

        Raises:
            Unavailable: The event does not carry all.
        """
        _unavailable(*self.missing)


class Change(NamedTuple):
    """What an event asks for.

    There is no time in it. Which write wins across partitions goes by the record's own timestamp,
    in which events and the null values that follow deletions compare: the database's is earlier by
    however far the connector lags, and a null value has none.

    Attributes:
        kind: `UPSERT`, `DELETE` or `SKIP`.
        row: As it is now; None unless it is an `UPSERT`.
        known: Whether it is an update, so that an event under the same key went before. The row
            under a primary key that has changed is none: it is new there.
    """

    kind: Kind
    row: Mapping[str, Any] | None = None
    known: bool = False


def change(value: object) -> Change:
    """What an event asks for.

    Args:
        value: The record's value, with or without its schema; None, which follows a deletion so
            that compaction removes the key, deletes as well.

    Raises:
        Rejected: It is no event of Debezium's, or one that can't be followed.
    """
    event = _payload(value)
    if event is None:
        return Change(Kind.DELETE)
    event = as_object(event, "the event")
    operation = event.get("op")
    if operation in _UPSERTS:
        return Change(Kind.UPSERT, _row(event, operation), operation == "u")
    if operation == "d":
        return Change(Kind.DELETE)
    if operation == "m" or (operation is None and _is_passed(event)):
        return Change(Kind.SKIP)
    return _refused(event, operation)


def identity(key: object) -> str:
    """The id that a record's key is: a column's value, or of several columns a JSON object.

    The object has its names in alphabetical order, so that the id does not depend on that of the
    columns.

    Raises:
        Rejected: It is none.
    """
    found = _payload(key)
    if isinstance(found, dict) and len(found) == 1:
        [found] = found.values()
    if found is None:
        reject("bad_key", "the key is null; an id is the value of the table's primary key")
    if found in ("", {}):
        reject("bad_key", "the key is empty")
    identity = found if isinstance(found, str) else _written(found)
    size = len(identity.encode())
    if size > MAX_ID_BYTES:
        reject("bad_key", f"the key has {size} bytes; an id has 1 to {MAX_ID_BYTES}")
    return identity


def _payload(value: object) -> object:
    """What stands beside a schema, where one does."""
    if isinstance(value, dict) and value.keys() == _ENVELOPE:
        schema = value["schema"]
        if schema is None or isinstance(schema, dict):
            return value["payload"]
    return value


def _row(event: Mapping[str, Any], operation: str) -> Mapping[str, Any]:
    row = event.get("after")
    if not isinstance(row, dict):
        reject(
            "bad_schema", f"after must be an object where op is {operation!r}, is {kind_of(row)}"
        )
    missing = [name for name, value in row.items() if _is_placeholder(value)]
    return PartialRow(row, missing) if missing else row


def _is_placeholder(value: object) -> bool:
    if isinstance(value, str):
        return value in _TEXTS
    if isinstance(value, list):
        return value in _LISTS
    return value == _MAP


def _is_passed(event: Mapping[str, Any]) -> bool:
    """Whether it is a heartbeat, the border of a transaction, or a change of schema."""
    return event.keys() in _PASSED or event.keys() >= _OF_SCHEMA


def _written(value: object) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError as error:
        reject("bad_key", f"the key is no id: {error}")


def _refused(event: Mapping[str, Any], operation: object) -> NoReturn:
    if operation == "t":
        reject(
            "bad_schema",
            "op 't': a truncate does not say which rows there were; empty the table by DELETE, or "
            "send a null value for each of the keys",
        )
    if "op" in event:
        reject("bad_schema", f"op must be one of c, r, u, d, t, m, is {shown(operation)}")
    reject(
        "bad_schema",
        "the value is no event of Debezium's: it has no op; rows that the connector unwraps "
        '(ExtractNewRecordState) are source.format = "json"',
    )


def _unavailable(*names: str) -> NoReturn:
    told = ", ".join(sorted(names))[:SHOWN_CHARACTERS]
    message = f"{told}: unchanged, and too large for PostgreSQL to log it again; set REPLICA "
    raise Unavailable("bad_schema", message + "IDENTITY FULL for the table, or see docs/cdc.md")
