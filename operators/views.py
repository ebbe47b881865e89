"""Decode views of products and their stocks: each a document of its product, or a dead letter.

A *view* says that a user has looked at a product: it brings the product's title up to date and
moves the user's activity. A *stock* says how many of a product there are, and nothing of its text.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import orjson

from headrace.v1.view_pb2 import Inventory, View
from operators.clock import wall_ms
from operators.judging import (
    MAX_ID_BYTES,
    Rejected,
    carried,
    dead_letter,
    is_protobuf,
    key_identity,
    kind_of,
    milliseconds,
    parse_message,
    parse_object,
    record_size,
    reject,
    shown,
    too_large,
)
from operators.partitions import partition_of
from operators.records import (
    DeadLetter,
    DocumentBatch,
    Kind,
    Metadata,
    Original,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.message import Message

    from operators.records import Headers, RecordBatch

__all__ = ["MOVED", "PRODUCT_COLUMNS", "ByTopic", "StockDecoder", "ViewDecoder"]

PRODUCT_COLUMNS: Final[Mapping[str, str]] = {
    "title": "string",
    "category": "string",
    "in_stock": "bool",
    "quantity": "int64",
    "stock_time": "int64",
    "quantity_time": "int64",
    "heat": "float64",
}
"""What the table of products keeps as columns, with their types.

`stock_time` and `quantity_time` are when `in_stock` and `quantity` were told, in milliseconds since
1970; `heat` is the binary logarithm of the sum of 2^(time / half-life) over all views: the more and
the later the views, the higher, and comparable at any time without being touched.
"""

USER: Final = "user_id"
"""A column that goes along with a view and that no table keeps."""

MOVED: Final = "moved"
"""The code of a view in another lane than its user's: it goes back to its topic under its user,
so that all views of a user are in one lane, whatever their keys are and whoever wrote them."""

MAX_QUANTITY: Final = (1 << 63) - 1


_Row = tuple[Kind, str, str | None, str | None, dict[str, Any], int, DeadLetter | None]


@dataclass(frozen=True)
class ViewDecoder:
    """Turns views into documents of products.

    Args:
        partitions: How many the topic of views has.
        popular_ms: After how long a view counts half for a product's `heat`, in milliseconds.
        max_record_bytes: Key, value and headers of a record together; a larger one is a dead
            letter.
        now_ms: The wall clock, in milliseconds since 1970.
    """

    partitions: int
    popular_ms: float
    max_record_bytes: int = 900_000
    now_ms: Callable[[], int] = wall_ms

    def __call__(self, batch: RecordBatch) -> DocumentBatch:
        """One document for each record of the batch, in its order."""
        decode = partial(self._decode, batch.lane.partition)
        return _decoded(batch, decode, self.max_record_bytes)

    def _decode(
        self,
        partition: int,
        _key: bytes | None,
        value: bytes | None,
        headers: Headers,
        timestamp: int,
    ) -> _Row:
        if value is None:
            reject("bad_schema", "the value is null: a view is not taken back")
        fields = _fields(value, headers, View, "a view")
        user, product = _identity(fields, "user_id"), _identity(fields, "product_id")
        title, category = _words(fields, "title"), _optional(fields, "category")
        if title is None:
            reject("no_text", "the view has no title")
        stocked = _flag(fields, "in_stock")
        # A time to come would outweigh all views until then.
        at = min(_time(fields, timestamp), self.now_ms())
        if partition_of(user.encode(), self.partitions) != partition:
            dead = DeadLetter(MOVED, "not its user's", Original(user.encode(), value, headers))
            return Kind.DEAD, "", None, None, {}, timestamp, dead
        columns = {"title": title, "category": category, USER: user, "heat": at / self.popular_ms}
        if stocked is not None:
            columns |= {"in_stock": stocked, "stock_time": at}
        text = title if category is None else f"{title}. {category}"
        return Kind.UPSERT, product, text, _json(columns, "title", "category"), columns, at, None


@dataclass(frozen=True)
class StockDecoder:
    """Turns stocks into parts of products.

    Args:
        max_record_bytes: As for views.
    """

    max_record_bytes: int = 900_000

    def __call__(self, batch: RecordBatch) -> DocumentBatch:
        """One part of a document for each record of the batch, in its order."""
        return _decoded(batch, self._decode, self.max_record_bytes)

    def _decode(
        self, key: bytes | None, value: bytes | None, headers: Headers, timestamp: int
    ) -> _Row:
        product = key_identity(key, "product")
        # A deleted record: the product is out of the inventory.
        gone = {"in_stock": False, "quantity": 0}
        fields = gone if value is None else _fields(value, headers, Inventory, "the value")
        if fields.get("product_id", product) != product:
            reject("bad_key", f"the key is not the product_id, {shown(fields['product_id'])}")
        stocked, quantity = _flag(fields, "in_stock"), _quantity(fields)
        if stocked is None and quantity is None:
            reject("bad_schema", "the record has neither in_stock nor quantity")
        at = _time(fields, timestamp)
        columns = {
            "in_stock": bool(quantity) if stocked is None else stocked,
            "quantity": quantity,
            "stock_time": at,
            "quantity_time": None if quantity is None else at,
        }
        return Kind.PART, product, None, None, columns, at, None


@dataclass(frozen=True)
class ByTopic:
    """Decodes the records of several topics, each as its own decoder does.

    Args:
        decoders: By topic.
    """

    decoders: Mapping[str, Callable[[RecordBatch], DocumentBatch]]

    def __call__(self, batch: RecordBatch) -> DocumentBatch:
        """One document for each record of the batch, in its order."""
        return self.decoders[batch.lane.topic](batch)


def _decoded(
    batch: RecordBatch,
    decode: Callable[[bytes | None, bytes | None, Headers, int], _Row],
    most: int,
) -> DocumentBatch:
    if not len(batch):
        return DocumentBatch(batch)

    def row(key: bytes | None, value: bytes | None, headers: Headers, timestamp: int) -> _Row:
        try:
            size = record_size(key, value, headers)
            if size > most:
                too_large(size, most)
            return decode(key, value, headers, timestamp)
        except Rejected as fault:
            dead = dead_letter(fault, Original(key, value, headers), most)
            return Kind.DEAD, "", None, None, {}, timestamp, dead

    rows = map(row, batch.keys, batch.values, batch.headers, batch.timestamps)
    kinds, ids, texts, whole, columns, times, dead = zip(*rows, strict=True)
    names = (*PRODUCT_COLUMNS, USER)
    rest = [None if found is None else "{}" for found in whole]
    return DocumentBatch(
        batch,
        kinds,
        ids,
        texts,
        Metadata(whole, rest, {name: [held.get(name) for held in columns] for name in names}),
        times,
        carried(batch.headers),
        {index: letter for index, letter in enumerate(dead) if letter},
    )


def _fields(value: bytes, headers: Headers, kind: type[Message], what: str) -> Mapping[str, Any]:
    """What a value tells, by name, whether it is JSON or Protobuf."""
    if headers and is_protobuf(headers):
        return {field.name: told for field, told in parse_message(value, kind).ListFields()}
    return parse_object(value, what)


def _json(columns: Mapping[str, Any], *names: str) -> str:
    kept = {name: columns[name] for name in names if columns[name] is not None}
    return orjson.dumps(kept).decode()


def _identity(fields: Mapping[str, Any], name: str) -> str:
    found = fields.get(name)
    if not isinstance(found, str):
        reject("bad_schema", f"{name} must be a string, is {kind_of(found)}")
    size = len(found.encode())
    if not 1 <= size <= MAX_ID_BYTES:
        reject("bad_schema", f"{name} has {size} bytes; an id has 1 to {MAX_ID_BYTES}")
    return found


def _optional(fields: Mapping[str, Any], name: str) -> str | None:
    found = fields.get(name)
    if found is not None and not isinstance(found, str):
        reject("bad_schema", f"{name} must be a string, is {kind_of(found)}")
    return found


def _words(fields: Mapping[str, Any], name: str) -> str | None:
    found = _optional(fields, name)
    return None if found is None or not found.strip() else found


def _flag(fields: Mapping[str, Any], name: str) -> bool | None:
    found = fields.get(name)
    if found is not None and not isinstance(found, bool):
        reject("bad_schema", f"{name} must be true or false, is {kind_of(found)}")
    return found


def _quantity(fields: Mapping[str, Any]) -> int | None:
    found = fields.get("quantity")
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= MAX_QUANTITY:
        reject("bad_schema", f"quantity must be a whole number from 0, is {shown(found)}")
    return found


def _time(fields: Mapping[str, Any], timestamp: int) -> int:
    """When it was, in milliseconds; never later than the record itself."""
    found = fields.get("timestamp")
    if found is None:
        return timestamp
    if isinstance(found, bool) or not isinstance(found, int | float):
        reject("bad_schema", f"timestamp must be a number, is {kind_of(found)}")
    try:
        return min(milliseconds(found), timestamp)
    except ValueError as error:
        reject("bad_schema", f"timestamp {error}: {found}")
