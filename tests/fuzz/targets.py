"""What reads what comes from outside, and what must come of whatever it is given."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from functools import cache, partial
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

from fastapi import FastAPI
from hypothesis import strategies as st

from cli.errors import CommandError
from cli.load import _lines
from harness.debezium import PLAIN, RECORDED, TYPED
from headrace.v1.document_pb2 import Document as DocumentMessage
from headrace.v1.view_pb2 import Inventory, View
from operators.documents import ERROR_CODES, Decoder
from operators.lines import ESCAPED
from operators.mapping import ChangeDecoder, Field, Plan
from operators.records import DocumentBatch, Kind, Lane, OutcomeBatch, RecordBatch
from operators.views import MOVED, StockDecoder, ViewDecoder
from serving.guard import Guard
from serving.ingest import Ingest, ingest_router
from serving.problems import ProblemError, answer_problems
from serving.publisher import Placed, Publisher
from sinks.errors import FilterError, SinkError
from sinks.fence import Fence
from sinks.filters import predicate
from sinks.messages import MessageEncoder
from sources.registered import RegisteredValues
from tests.fuzz.loop import Target
from tests.fuzz.mutations import accidents, json_texts, protobuf
from tests.registries import SAMPLES, Offline, framed
from tests.samples import COLUMNS, encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from random import Random

    from hypothesis.strategies import SearchStrategy

    from clients.registry import Registry
    from headrace.errors import HeadraceError
    from operators.records import Headers
    from serving.records import Record

__all__ = ["TARGETS"]

MOST: Final = 200_000
"""Bytes that a record may have here."""

MESSAGE_BYTES: Final = 1_000
"""Of what a dead letter says of itself: it is a header beside the whole record."""

HOME: Final = 1
"""The partition of two that the views of the samples' user belong to."""

NOW: Final = 1_700_000_000_000
PLAN: Final = Plan(
    "{/title?}{/text?}{/body?}{/line?}",
    metadata={"price": Field("/price", "float64"), "sizes": Field("/sizes/0")},
    delete_when="active == `false`",
    only="stars != `5`",
)
DECODER: Final = Decoder(COLUMNS, MOST)
VIEWS: Final = ViewDecoder(2, 3_600_000.0, MOST, now_ms=lambda: NOW)
STOCKS: Final = StockDecoder(MOST)
CHANGES: Final = ChangeDecoder({"price": "float64"}, MOST, plan=PLAN)
ENCODER: Final = MessageEncoder("embeddings", "dead", "float32", "some/model", "f1")
ENCODED: Final = encoded("words")

Given = tuple[bytes | None, bytes | None, "Headers"]
Request = tuple[bytes, str, "Sequence[tuple[bytes, bytes]]"]

# ── Records ──────────────────────────────────────────────────────────────────────────────────────

_types: Final = st.sampled_from(
    [b"application/x-protobuf", b"Application/X-Protobuf ; v=1", b"application/json", b";", None]
)
_headers: Final = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["content-type", "Content-Type"]), _types),
        st.tuples(st.sampled_from(["event_id", "user_id"]), st.none() | st.binary(max_size=8)),
        st.tuples(st.text(max_size=4), st.none() | st.binary(max_size=4)),
    ),
    max_size=3,
).map(tuple)
_keys: Final = st.sampled_from(
    [b"42"] * 8 + [b"u", "ü".encode(), b"x" * 1024, b"", None, b"x" * 1025, b"\xed\xa0\x80"]
)


def _records(values: SearchStrategy[bytes], *first: tuple[str, bytes]) -> SearchStrategy[Given]:
    """Records of such values, among other headers with those given, some of them deletions."""
    headers = _headers.map(lambda more: (*first, *more))
    return st.tuples(_keys, st.one_of(values, values, values, st.none()), headers)


def _decoded(decoder: Callable[[RecordBatch], DocumentBatch], lane: Lane, given: Given) -> str:
    """Decode a record, and hand on what comes of it as the flow does."""
    key, value, headers = given
    size = len(key or b"") + len(value or b"")
    records = RecordBatch(lane, 0, 1, [0], [NOW], [key], [value], [headers], size=size)
    found = decoder(records)
    kind, dead = found.kinds[0], found.dead.get(0)
    assert len(found) == 1
    if kind is Kind.SKIP:
        return "skip"
    assert (kind is Kind.DEAD) == (dead is not None), "neither a document nor a dead letter"
    written = list(ENCODER.records(_outcomes(found)))
    assert len(written) == 1, "not one outcome"
    topic, written_key, written_value, written_headers, _, _ = written[0]
    if dead is None:
        assert topic == "embeddings"
        assert (written_key, key and written_key) != (None, b"")
        text, whole = found.texts[0], found.metadata.json[0]
        assert (text is None) == (kind is not Kind.UPSERT), "a text where none belongs"
        assert text is None or text.strip(), "an empty text"
        assert whole is None or isinstance(json.loads(whole), dict), "metadata is no object"
        return kind.name.lower()
    assert dead.code in {*ERROR_CODES, MOVED}, "an unknown code"
    assert 0 < len(dead.message.encode()) <= MESSAGE_BYTES, "a message out of bounds"
    if dead.code == MOVED:
        assert written_value == value, "a view that changed on its way"
    elif dead.code != "too_large":
        assert (written_key, written_value) == (key, value), "not kept as it was"
        assert written_headers[: len(headers)] == list(headers), "headers are lost"
    return dead.code


def _outcomes(found: DocumentBatch) -> OutcomeBatch:
    """A decoded batch as if it had been embedded."""
    records = found.records
    vectors = [None if kind in (Kind.DELETE, Kind.DEAD) else ENCODED for kind in found.kinds]
    return OutcomeBatch(
        records.lane,
        records.start,
        records.end,
        NOW,
        records.offsets,
        records.timestamps,
        found.kinds,
        found.ids,
        found.event_times,
        found.texts,
        found.metadata,
        vectors,
        found.headers,
        found.dead,
    )


DOCUMENTS: Final = (
    b'{"text": "a red chair of beech"}',
    b'{"text": "words", "metadata": {"price": 120.5, "name": "n", "big": 7}, "timestamp": 5}',
    b'{"metadata": {"on": true, "small": 3, "half": 0.5, "other": [1, {"a": null}]}}',
)
VIEW: Final[Mapping[str, Any]] = {"user_id": "u", "product_id": "42", "title": "Office Chair"}
VIEW_TEXTS: Final = tuple(
    json.dumps({**VIEW, **more}).encode()
    for more in ({}, {"category": "chairs", "in_stock": True, "timestamp": 1_700_000_000})
)
STOCK_TEXTS: Final = (b'{"in_stock": true, "quantity": 3}', b'{"quantity": 0, "product_id": "42"}')

_documents: Final = json_texts(["text", "metadata", "timestamp"], DOCUMENTS)
_metadata: Final = json_texts([*COLUMNS, "other"], [b'{"price": 1.5}', b"{}", b'{"small": 1}'])
_views: Final = json_texts([*VIEW, "category", "in_stock", "timestamp"], VIEW_TEXTS)
_stocks: Final = json_texts(["product_id", "in_stock", "quantity", "timestamp"], STOCK_TEXTS)
_typed_documents: Final = _metadata.map(lambda text: b'{"text": "a", "metadata": ' + text + b"}")

PROTOBUF: Final = ("content-type", b"application/x-protobuf")
DOCUMENT_MESSAGES: Final = (
    DocumentMessage(text="a red chair").SerializeToString(),
    DocumentMessage(text="a", metadata_json='{"price":1}', timestamp=NOW).SerializeToString(),
)
VIEW_MESSAGES: Final = (
    View(**VIEW).SerializeToString(),
    View(**VIEW, category="chairs", in_stock=False, timestamp=NOW).SerializeToString(),
)
STOCK_MESSAGES: Final = (
    Inventory(in_stock=True, quantity=3).SerializeToString(),
    Inventory(product_id="42", quantity=0, timestamp=NOW).SerializeToString(),
)
_inner: Final = st.one_of(_metadata, st.binary(max_size=8), st.text(max_size=8).map(str.encode))


# ── Lines ────────────────────────────────────────────────────────────────────────────────────────

LINES: Final = (
    b'{"id": "chair", "text": "a red chair", "metadata": {"price": 120}}',
    b'{"id": "lamp", "deleted": true}',
    b'{"id": "desk", "metadata": {}, "timestamp": 1700000000000}',
)
_files: Final = st.lists(
    json_texts(["id", "text", "metadata", "timestamp", "deleted"], LINES)
    | st.sampled_from([b"", b" ", b"\r", *LINES]),
    max_size=3,
).map(b"\n".join)


def _loaded(content: bytes) -> str:
    """Read a file as `headrace load` does: each record that is sent is one that the flow takes."""
    sent = 0
    try:
        for _, record in _lines(BytesIO(content), "FILE", DECODER):
            _accepted(DECODER, Lane("documents", 0), record.key, record.value)
            sent += 1
    except CommandError as error:
        return _named(error, "FILE: line ")
    return "sent" if sent else "empty"


def _named(error: HeadraceError, what: str) -> str:
    """An error as it must be: it names the thing, and has a bound."""
    assert what in str(error), "nothing is named"
    assert len(str(error)) <= MESSAGE_BYTES, "a message out of bounds"
    return "refused"


def _accepted(
    decoder: Callable[[RecordBatch], DocumentBatch],
    lane: Lane,
    key: bytes,
    value: bytes | None,
    headers: Headers = (),
) -> None:
    outcome = _decoded(decoder, lane, (key, value, headers))
    assert outcome in {"upsert", "patch", "delete", "part", MOVED}, (
        f"the flow makes {outcome} of it"
    )


# ── HTTP ─────────────────────────────────────────────────────────────────────────────────────────

ROUTES: Final = {
    "event": ("POST", "/event"),
    "view": ("POST", "/view"),
    "document": ("PUT", "/v1/documents/{}"),
    "deletion": ("DELETE", "/v1/documents/{}"),
    "inventory": ("PUT", "/v1/products/{}/inventory"),
    "bulk": ("POST", "/v1/documents"),
}
REFUSED: Final = frozenset({400, 404, 405, 413, 422})
EVENT: Final = b'{"user_id": "u", "text": "asked for a chair", "timestamp": 1700000000}'
BODIES: Final[Mapping[str, SearchStrategy[bytes]]] = {
    "event": json_texts(["user_id", "text", "timestamp"], [EVENT]),
    "view": json_texts([*VIEW, "category", "in_stock", "timestamp"], VIEW_TEXTS[1:]),
    "document": _documents | _typed_documents,
    "deletion": st.just(b""),
    "inventory": json_texts(["in_stock", "quantity"], STOCK_TEXTS[:1]),
    "bulk": _files,
}
ANSWER_BYTES: Final = 20_000
"""Of an answer to a request of one record, however long that is."""


@dataclass
class Kept:
    """Stands for the publisher: keeps what it is given, as a broker that takes everything."""

    records: list[Record] = field(default_factory=list)

    async def room(self) -> None:
        """There always is."""

    def begin(self, record: Record) -> asyncio.Future[Placed]:
        """Keep a record, unless it is one that the publisher refuses."""
        if record.size > MOST:
            raise ProblemError(413, "too_large", f"the record has {record.size} bytes")
        self.records.append(record)
        future = asyncio.get_running_loop().create_future()
        future.set_result(Placed(record.topic, 0, len(self.records) - 1))
        return future

    async def outcome(self, placed: asyncio.Future[Placed]) -> Placed:
        """Where it is."""
        return await placed

    async def send(self, record: Record) -> Placed:
        """Keep a record."""
        return await self.begin(record)


@dataclass
class Service:
    """The routes that write, with a loop to run them in."""

    kept: Kept
    app: FastAPI
    runner: asyncio.Runner


@cache
def _service() -> Service:
    app, kept = FastAPI(), Kept()
    app.state.guard = Guard(None, "", ESCAPED * MOST)
    answer_problems(app)
    publisher = cast("Publisher", kept)
    parts = Ingest(publisher, DECODER, "documents", "views", "inventory", ESCAPED * MOST, 100)
    app.include_router(ingest_router(parts))
    return Service(kept, app, asyncio.Runner())


def _requested(route: str, given: Request) -> str:
    """Send a request, as a server hands it on: what is accepted is what the flow takes."""
    body, identity, headers = given
    service = _service()
    service.kept.records.clear()
    method, path = ROUTES[route]
    media = b"application/x-ndjson" if route == "bulk" else b"application/json"
    all_headers = [(b"content-type", media), *headers]
    scope = _scope(method, path.replace("{}", identity), all_headers)
    status, answer = service.runner.run(_asked(service.app, scope, body))
    if route == "bulk":
        return _bulk_told(service.kept, status, answer)
    assert len(answer) <= ANSWER_BYTES, "an answer out of bounds"
    told = json.loads(answer)
    if status == 202:
        (record,) = service.kept.records
        _taken(record)
        return "accepted"
    assert status in REFUSED, f"status {status}"
    assert not service.kept.records, "refused, and sent"
    assert told["code"], "no code"
    return str(told["code"])


def _taken(record: Record) -> None:
    """Whether the flow takes what was sent."""
    decoders: Mapping[str, Callable[[RecordBatch], DocumentBatch]]
    decoders = {"documents": DECODER, "views": VIEWS, "inventory": STOCKS}
    lane = Lane(record.topic, 0)
    _accepted(decoders[record.topic], lane, record.key, record.value, record.headers)


def _bulk_told(kept: Kept, status: int, answer: bytes) -> str:
    results = [json.loads(line) for line in answer.splitlines()]
    assert status == 200
    numbers = [result["line"] for result in results]
    assert numbers == sorted(set(numbers)), "not one result a line, in their order"
    accepted = [result for result in results if result["status"] == 202]
    assert len(accepted) == len(kept.records), "not what was sent"
    for record in kept.records:
        _taken(record)
    assert {result["status"] for result in results} <= {202, 413, 422}
    return "some" if accepted else "none"


def _scope(method: str, path: str, headers: Sequence[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": b"",
        "root_path": "",
        "headers": list(headers),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8080),
    }


async def _asked(app: FastAPI, scope: dict[str, Any], body: bytes) -> tuple[int, bytes]:
    half = len(body) // 2
    left = [(body[:half], True), (body[half:], False)]
    status, answer = 0, bytearray()

    async def receive() -> dict[str, Any]:
        if not left:
            return {"type": "http.disconnect"}
        piece, more = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": more}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)
        answer.extend(message.get("body", b""))

    await app(scope, receive, send)
    return status, bytes(answer)


_paths: Final = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("/?#%.\n\0ü🙂"), max_size=8
) | st.sampled_from(["chair", "x" * 1024, "x" * 1025, "ü" * 513])
_request_headers: Final = st.lists(
    st.tuples(
        st.sampled_from([b"idempotency-key", b"content-length", b"traceparent"]),
        st.binary(max_size=12) | st.sampled_from([b"x" * 1025, b"9" * 5000, b"\xb2"]),
    ),
    max_size=2,
)

# ── What the table's own columns hold, and conditions ────────────────────────────────────────────

FENCE: Final = Fence("some/model", "f1", "w", 7, {"documents/000000": 3}).json().encode()
_fences: Final = json_texts(
    ["model", "fingerprint", "writer", "sequence", "progress", "version", "seeded"], [FENCE, b"{}"]
)


def _fenced(text: bytes) -> str:
    """Read a fence row: it is one, with the types that it must have, or refused by name."""
    try:
        held = Fence.parse(text.decode(errors="replace"))
    except SinkError as error:
        return _named(error, "table.name")
    assert all(isinstance(offset, int) and offset >= 0 for offset in held.progress.values())
    assert isinstance(held.sequence, int)
    assert Fence.parse(held.json()) == held
    return "read"


CONDITIONS: Final = (
    b"price < 200 AND name = 'chair'",
    b"NOT (\"on\" OR small IN (1, 2)) AND name LIKE 'a%'",
    b"half BETWEEN 0.5 AND 1e3 OR big IS NOT NULL",
)
_conditions: Final = st.sampled_from(CONDITIONS) | st.builds(
    lambda first, depth, last: first * depth + b"price" + last * depth,
    st.sampled_from([b"(", b"NOT ", b"-", b"((", b"price + ", b"CASE WHEN "]),
    st.sampled_from([1, 63, 65, 500, 1300, 3000]),
    st.sampled_from([b"", b")", b"))", b" END"]),
)


def _filtered(text: bytes) -> str:
    """Read a condition: it is written anew, or refused."""
    try:
        written = predicate(text.decode(errors="replace"), COLUMNS)
    except FilterError:
        return "refused"
    assert written
    return "read"


def _recorded() -> list[Given]:
    """The change events of a real database."""
    found: list[Given] = []
    for name in (PLAIN, TYPED):
        lines = (RECORDED / f"{name}.ndjson").read_text(encoding="utf-8").splitlines()
        for one in map(json.loads, lines):
            key, value = (one[part] and one[part].encode() for part in ("key", "value"))
            found.append((key, value, ()))
    return found


def _event_varied(given: Given, chance: Random) -> Given:
    key, value, headers = _value_varied(given, chance)
    kept = key is None or chance.random() < 0.8
    return key if kept else accidents(key or b"", chance), value, headers


def _value_varied(given: Given, chance: Random) -> Given:
    key, value, headers = given
    return key, None if value is None else accidents(value, chance), headers


def _body_varied(given: Request, chance: Random) -> Request:
    body, identity, headers = given
    return accidents(body, chance), identity, headers


def _http(route: str) -> Target:
    inputs = st.tuples(BODIES[route], _paths, _request_headers)
    return Target(f"http-{route}", inputs, _body_varied, partial(_requested, route))


def _decoding(
    name: str,
    topic: str,
    values: SearchStrategy[bytes],
    decoder: Callable[[RecordBatch], DocumentBatch],
    *headers: tuple[str, bytes],
) -> Target:
    check = partial(_decoded, decoder, Lane(topic, HOME))
    return Target(name, _records(values, *headers), _value_varied, check)


_notes: Final = st.one_of(
    st.sampled_from([framed(n, note) for n, note in enumerate(SAMPLES.values(), 1)]),
    st.builds(framed, st.integers(0, 4), st.binary(max_size=40)),
    _documents.map(partial(framed, 3)),
    st.binary(max_size=8),
)
REGISTERED: Final = Decoder(
    COLUMNS, MOST, values=RegisteredValues(cast("Registry", Offline.made()))
)

TARGETS: Final[Mapping[str, Target]] = {
    target.name: target
    for target in (
        _decoding("documents-registered", "documents", _notes, REGISTERED),
        _decoding("documents-json", "documents", _documents | _typed_documents, DECODER),
        _decoding(
            "documents-protobuf",
            "documents",
            protobuf(DOCUMENT_MESSAGES, _inner),
            DECODER,
            PROTOBUF,
        ),
        _decoding("views-json", "views", _views, VIEWS),
        _decoding("views-protobuf", "views", protobuf(VIEW_MESSAGES, _inner), VIEWS, PROTOBUF),
        _decoding("stocks-json", "inventory", _stocks, STOCKS),
        _decoding(
            "stocks-protobuf", "inventory", protobuf(STOCK_MESSAGES, _inner), STOCKS, PROTOBUF
        ),
        Target(
            "changes",
            st.sampled_from(_recorded()),
            _event_varied,
            partial(_decoded, CHANGES, Lane("changes", HOME)),
        ),
        Target("lines", _files, accidents, _loaded),
        *(_http(route) for route in ROUTES),
        Target("fence", _fences, accidents, _fenced),
        Target("conditions", _conditions, accidents, _filtered),
    )
}
