"""Where a document's id is: the record's key, something in it, or a field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from operators.guess.looks import word_count
from operators.guess.times import is_time
from operators.judging import MAX_ID_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from operators.guess.fields import Field
    from operators.guess.reading import Row

__all__ = ["KEY", "guess_id", "is_in_key"]

KEY: Final = "key"
NAMES: Final = ("id", "uuid", "guid", "key", "sku", "isbn", "asin", "slug", "number")
"""The words that an id's name has, the likeliest first."""

MESSAGE: Final = frozenset({"event", "message", "request", "trace", "correlation", "span", "tx"})
"""Words of the names of ids that each record has anew, whatever document it tells of."""

ENVELOPE: Final = {"schema", "payload"}
"""What Kafka Connect writes where a key stands beside its schema."""

SHORT: Final = 80
"""Characters of a text that may be an id though its name does not say so."""


def guess_id(rows: Sequence[Row], fields: Sequence[Field], *, deletions: bool) -> str | None:
    """Where the id is; None if nothing looks like one.

    A key by which records are merely spread over partitions is told from an id by a field that
    tells more records apart than it does.

    Args:
        rows: The records.
        fields: What is in them.
        deletions: Whether some records have no value, so that the id must be in the key.
    """
    in_key = _in_key([row.key for row in rows])
    in_value = _in_value(fields)
    if in_key is None or deletions:
        return in_key or (in_value.pointer if in_value else None)
    keys = len({row.key for row in rows})
    own = in_value is not None and _named(in_value) and not MESSAGE & set(in_value.words)
    if in_value is not None and own and in_value.distinct > keys:
        return in_value.pointer
    return in_key


def is_in_key(field: Field, rows: Sequence[Row]) -> bool:
    """Whether a field only says again what the key says."""
    return field.always and all(
        str(value) in _key_texts(row.key) for row, value in zip(rows, field.values, strict=True)
    )


def _key_texts(key: bytes | None) -> Collection[str]:
    """What is in a key: the whole, and each field of an object."""
    found = _object(key or b"")
    if found is None:
        return {(key or b"").decode(errors="replace")}
    inner = found.get("payload", found)
    return set(map(str, inner.values() if isinstance(inner, dict) else (inner,)))


def _in_key(keys: Sequence[bytes | None]) -> str | None:
    """Where the id would be if it were in the key."""
    if not keys or any(key is None or not 1 <= len(key) <= MAX_ID_BYTES for key in keys):
        return None
    objects = [_object(key) for key in keys if key is not None]
    if all(one is not None for one in objects):
        return _within([one for one in objects if one is not None])
    try:
        for key in keys:
            (key or b"").decode()
    except UnicodeDecodeError:
        return None
    return KEY


def _within(objects: Sequence[dict[str, Any]]) -> str:
    """The one value that keys hold which are objects; the whole of them where there are several."""
    inner: list[Any] = list(objects)
    place = KEY
    if all(one.keys() == ENVELOPE for one in objects):
        inner = [one["payload"] for one in objects]
        place += "/payload"
    while names := {name for one in inner if isinstance(one, dict) for name in one}:
        if len(names) > 1 or not all(isinstance(one, dict) and one for one in inner):
            return KEY
        [name] = names
        place += "/" + name.replace("~", "~0").replace("/", "~1")
        inner = [one[name] for one in inner]
    return place if all(map(_is_id, inner)) and not place.endswith("?") else KEY


def _is_id(one: object) -> bool:
    return isinstance(one, str | int) and not isinstance(one, bool) and one != ""


def _object(key: bytes) -> dict[str, Any] | None:
    try:
        found = orjson.loads(key)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _in_value(fields: Sequence[Field]) -> Field | None:
    """The field that looks most like an id."""
    likely = [field for field in fields if _may_be(field)]
    return max(likely, key=_score, default=None)


def _may_be(field: Field) -> bool:
    if not field.always or field.kind not in ("string", "integer") or is_time(field):
        return False
    texts = [str(value) for value in field.values]
    if any(not 1 <= len(text) <= SHORT or word_count(text) != 1 for text in texts):
        return False
    if _named(field):
        # What repeats is the id of something else, unless it says that it is the record's own.
        return field.distinct * 2 > field.rows or (len(field.path) == len(field.words) == 1)
    return field.distinct == field.rows > 1 and field.kind == "string"


def _named(field: Field) -> bool:
    return bool(set(field.words) & set(NAMES))


def _score(field: Field) -> tuple[float, int, int]:
    """The most different values, then the likeliest name, then what is least deep."""
    words = field.words
    place = next((at for at, name in enumerate(NAMES) if name in words), len(NAMES))
    alone = len(words) == 1
    return (field.distinct / field.rows, -len(field.path), 2 * (len(NAMES) - place) + alone)
