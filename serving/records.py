"""What a request asks to be written, as Kafka records; pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from operators.records import Kind
from operators.traces import TRACEPARENT, parse_traceparent
from serving.problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from operators.documents import Decoder
    from operators.records import Headers
    from serving.models import DocumentBody, Event, Inventory, View

__all__ = ["Record", "checked", "document", "event", "event_id", "inventory", "traced", "view"]

_ID_BYTES: Final = 16

STATUS: Final[Mapping[str, int]] = {"too_large": 413}
"""The status that a dead letter's code is answered with, if not 422."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record to be written.

    Attributes:
        topic: Where to.
        key: By which it is placed, and kept in order.
        value: None deletes.
        headers: That go with it.
    """

    topic: str
    key: bytes
    value: bytes | None
    headers: Headers = ()

    @property
    def size(self) -> int:
        """Bytes of key, value and headers."""
        headers = sum(len(name) + len(value or b"") for name, value in self.headers)
        return len(self.key) + len(self.value or b"") + headers


def traced(traceparent: str | None) -> Headers:
    """The header that carries a request's trace on, if it has one that can be read."""
    told = (traceparent or "").encode(errors="replace")
    return () if parse_traceparent(told) is None else ((TRACEPARENT, told),)


def event_id(given: Event) -> str:
    """An id made from the event: sent again, it is the same document."""
    content = orjson.dumps([given.user_id, given.text, given.timestamp])
    return hashlib.blake2b(content, digest_size=_ID_BYTES).hexdigest()


def event(topic: str, given: Event, identity: str, trace: Headers) -> Record:
    """An event as the document that it becomes."""
    value = {
        "text": given.text,
        "metadata": {"user_id": given.user_id},
        "timestamp": given.timestamp,
    }
    headers = (
        ("event_id", identity.encode()),
        ("user_id", given.user_id.encode()),
        *trace,
    )
    return Record(topic, identity.encode(), orjson.dumps(value), headers)


def view(topic: str, given: View, trace: Headers) -> Record:
    """A view, by its user: what moves a user's activity stays in order."""
    value = given.model_dump(exclude_none=True)
    headers = (("user_id", given.user_id.encode()), *trace)
    return Record(topic, given.user_id.encode(), orjson.dumps(value), headers)


def inventory(topic: str, identity: str, given: Inventory, now_ms: int, trace: Headers) -> Record:
    """A product's stock, by the product, as it was told at some millisecond since 1970."""
    value = {"product_id": identity, **given.model_dump(), "timestamp": now_ms}
    return Record(topic, identity.encode(), orjson.dumps(value), trace)


def document(
    topic: str, identity: str, given: DocumentBody | None, trace: Headers, decoder: Decoder
) -> Record:
    """A document as it is now; None deletes it.

    Raises:
        ProblemError: The flow would make a dead letter of it.
    """
    value = None if given is None else given.model_dump(exclude_none=True)
    return checked(Record(topic, identity.encode(), _dumped(value), trace), decoder)


def _dumped(value: dict[str, Any] | None) -> bytes | None:
    try:
        return None if value is None else orjson.dumps(value)
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise ProblemError(422, "bad_schema", f"metadata: can't be kept: {error}") from error


def checked(record: Record, decoder: Decoder) -> Record:
    """The record, if the flow would make a document of it.

    Raises:
        ProblemError: It would make a dead letter.
    """
    found = decoder.decode(record.key, record.value, record.headers, 0)
    if found.kind is Kind.DEAD and found.dead is not None:
        code = found.dead.code
        raise ProblemError(STATUS.get(code, 422), code, found.dead.message)
    return record
