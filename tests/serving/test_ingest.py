"""Writes over HTTP, by a real server to a real broker."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import httpx
import pytest

from operators.documents import Decoder
from operators.records import Kind
from serving.models import Event
from serving.records import event_id
from tests.brokers import read_all, topic_on
from tests.serving.services import lines, problem, serving, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from confluent_kafka import Message

    from harness.broker import Broker

pytestmark = pytest.mark.kafka

MAX_RECORD_BYTES = 4096
NDJSON = {"content-type": "application/x-ndjson"}
TOO_LARGE = (413, "too_large")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass(frozen=True)
class Service:
    """A server, and the topics that it writes to."""

    broker: Broker
    url: str
    documents: str
    views: str
    inventory: str

    def message(self, answer: httpx.Response) -> Message:
        """The record that an accepted write says there is."""
        assert answer.status_code == 202, answer.text
        place = answer.json()
        assert place.keys() == {"topic", "partition", "offset"}
        return self.at(place)

    def at(self, place: dict[str, Any]) -> Message:
        """The record at a place."""
        held = read_all(self.broker, place["topic"], place["partition"])
        offset: int = place["offset"]
        return held[offset]


@pytest.fixture(scope="module")
def service(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running server that writes."""
    topics = [topic_on(broker, 2) for _ in range(3)]
    settings = settings_of(
        tmp_path_factory.mktemp("serving"),
        kafka={"bootstrap_servers": broker.bootstrap_servers},
        source={"topics": topics[0], "max_record_bytes": MAX_RECORD_BYTES},
        table={"columns": {"price": "float64"}},
        recommend={"views_topic": topics[1], "inventory_topic": topics[2]},
        serve={
            "parts": "ingest",
            "max_body_bytes": 20_000,
            "max_bulk_lines": 3000,
        },
    )
    with serving(settings) as url:
        yield Service(broker, url, *topics)


def headers_of(message: Message) -> dict[str, bytes]:
    """A record's headers."""
    headers = cast("list[tuple[str, bytes]]", message.headers() or [])
    return dict(headers)


def test_event(service: Service) -> None:
    """An event is a document with the user, the time in milliseconds and an id of its content."""
    body = {"user_id": "u1", "text": "asked for a chair", "timestamp": 1700000000}
    answers = [httpx.post(f"{service.url}/event", json=body) for _ in range(2)]
    first, second = (service.message(answer) for answer in answers)
    assert first.topic() == service.documents
    identity = event_id(Event.model_validate(body)).encode()
    assert first.key() == second.key() == identity
    assert json.loads(first.value() or b"") == {
        "text": "asked for a chair",
        "metadata": {"user_id": "u1"},
        "timestamp": 1700000000000,
    }
    assert headers_of(first) == {"event_id": identity, "user_id": b"u1"}


def test_idempotency_key(service: Service) -> None:
    """The header names the document; the request's trace goes on in the record."""
    body = {"user_id": "u1", "text": "x", "timestamp": 1700000000123}
    headers = {"Idempotency-Key": "mine", "traceparent": TRACE}
    message = service.message(httpx.post(f"{service.url}/event", json=body, headers=headers))
    assert message.key() == b"mine"
    assert headers_of(message)["traceparent"] == TRACE.encode()
    assert json.loads(message.value() or b"")["timestamp"] == 1700000000123


def test_view_by_curl(service: Service) -> None:
    """The documented call works as it is written; the record is keyed by the user."""
    body = (
        '{"user_id":"u123","product_id":"42","title":"Ergonomic Office Chair",'
        '"timestamp":1700000000}'
    )
    call = ["curl", "-sS", "-X", "POST", f"{service.url}/view"]
    call += ["-H", "Content-Type: application/json", "-d", body]
    done = subprocess.run(call, check=True, capture_output=True, timeout=20)
    message = service.at(json.loads(done.stdout))
    assert message.topic() == service.views
    assert message.key() == b"u123"
    expected = {**json.loads(body), "timestamp": 1700000000000}
    assert json.loads(message.value() or b"") == expected
    assert headers_of(message) == {"user_id": b"u123"}


def test_view_with_all(service: Service) -> None:
    """What a view says beside that goes on, too."""
    body = {"user_id": "u", "product_id": "p", "title": "t", "timestamp": 1.5, "category": "c"}
    message = service.message(httpx.post(f"{service.url}/view", json={**body, "in_stock": False}))
    expected = {**body, "timestamp": 1500, "in_stock": False}
    assert json.loads(message.value() or b"") == expected


@pytest.mark.parametrize("identity", ["chair", "a/b", "a%2Fb", "ü ?#%\n", "x/inventory"])
def test_documents(service: Service, identity: str) -> None:
    """A document is written, changed and deleted under its id, in that order, in one place."""
    path = f"{service.url}/v1/documents/{identity}"
    if identity not in {"a/b", "x/inventory"}:
        path = f"{service.url}/v1/documents/{quote(identity, safe='')}"
    document = {"text": "a red chair", "metadata": {"price": 3}, "timestamp": 1700000000}
    answers = [
        httpx.put(path, json=document),
        httpx.put(path, json={"metadata": {"price": 4}}),
        httpx.delete(path),
    ]
    messages = [service.message(answer) for answer in answers]
    assert {message.key() for message in messages} == {identity.encode()}
    assert len({message.partition() for message in messages}) == 1
    offsets = [message.offset() or 0 for message in messages]
    assert offsets == sorted(offsets)
    assert json.loads(messages[0].value() or b"") == {**document, "timestamp": 1700000000000}
    assert json.loads(messages[1].value() or b"") == {"metadata": {"price": 4}}
    assert messages[2].value() is None
    decoder = Decoder({"price": "float64"}, MAX_RECORD_BYTES)
    kinds = [decoder.decode(m.key(), m.value(), (), 0).kind for m in messages]
    assert kinds == [Kind.UPSERT, Kind.PATCH, Kind.DELETE]


def test_inventory(service: Service) -> None:
    """A product's stock is written under the product, with the time at which it was told."""
    before = time.time_ns() // 1_000_000
    body = {"in_stock": True, "quantity": 7}
    message = service.message(httpx.put(f"{service.url}/v1/products/42/inventory", json=body))
    assert message.topic() == service.inventory
    assert message.key() == b"42"
    value = json.loads(message.value() or b"")
    assert before <= value.pop("timestamp") <= time.time_ns() // 1_000_000
    assert value == {"product_id": "42", **body}


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/event", {"user_id": "u", "text": " ", "timestamp": 1}, (422, "invalid")),
        ("POST", "/event", {"user_id": "", "text": "x", "timestamp": 1}, (422, "invalid")),
        ("POST", "/event", {"user_id": "u", "text": "x", "timestamp": -1}, (422, "invalid")),
        ("POST", "/event", {"user_id": "u", "text": "x", "timestamp": "1"}, (422, "invalid")),
        ("POST", "/event", {"user_id": "u", "text": "x"}, (422, "invalid")),
        (
            "POST",
            "/event",
            {"user_id": "u", "text": "x" * 5000, "timestamp": 1},
            TOO_LARGE,
        ),
        ("POST", "/view", {"user_id": "u", "product_id": "p", "timestamp": 1}, (422, "invalid")),
        ("PUT", "/v1/documents/a", {}, (422, "no_text")),
        ("PUT", "/v1/documents/a", {"text": None}, (422, "no_text")),
        ("PUT", "/v1/documents/a", {"text": "x", "metadata": []}, (422, "invalid")),
        ("PUT", "/v1/documents/a", {"text": "x", "price": 3}, (422, "invalid")),
        ("PUT", "/v1/documents/a", {"metadata": {"price": "low"}}, (422, "bad_schema")),
        ("PUT", "/v1/documents/a", {"text": "x" * 5000}, TOO_LARGE),
        ("PUT", "/v1/documents/a", {"text": "x" * 30_000}, TOO_LARGE),
        ("PUT", f"/v1/documents/{'x' * 1025}", {"text": "x"}, (422, "invalid")),
        ("PUT", "/v1/documents/", {"text": "x"}, (422, "invalid")),
        ("PUT", "/v1/products/p/inventory", {"in_stock": 1, "quantity": 1}, (422, "invalid")),
        ("PUT", "/v1/products/p/inventory", {"in_stock": True}, (422, "invalid")),
        ("PUT", "/v1/products/p/inventory", {"in_stock": True, "quantity": -1}, (422, "invalid")),
    ],
)
def test_wrong(
    service: Service, method: str, path: str, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    """What the flow would make a dead letter of is refused, and so is a slip of the pen."""
    assert problem(httpx.request(method, service.url + path, json=body)) == expected


def results(answer: httpx.Response) -> list[dict[str, Any]]:
    """A bulk's results."""
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def bulk(service: Service, content: Any) -> list[dict[str, Any]]:
    """The results of a bulk."""
    return results(
        httpx.post(f"{service.url}/v1/documents", content=content, headers=NDJSON, timeout=60)
    )


def test_bulk(service: Service) -> None:
    """Each line has a result in its place; a wrong one stops none of the others."""
    good = {"id": "b1", "text": "x", "metadata": {"price": 1}, "timestamp": 1700000000}
    content = b"\n".join(
        [
            json.dumps(good).encode(),
            b"nope",
            b"",
            b'{"text": "no id"}',
            b'{"id": "b1", "text": " "}',
            b'{"id": "b1", "text": "x", "timestamp": "now"}',
            b'{"id": "b1", "text": "x", "timestamp": -5}',
            b'{"id": "b2", "text": "%s"}' % (b"x" * 5000),
            b'{"id": "b3", "text": "%s"}' % (b"x" * 30_000),
            b'{"id": "b1", "deleted": true}',
        ]
    )
    found = bulk(service, content)
    assert [(r["line"], r.get("id"), r["status"], r.get("code")) for r in found] == [
        (1, "b1", 202, None),
        (2, None, 422, "bad_json"),
        (4, None, 422, "bad_schema"),
        (5, "b1", 422, "no_text"),
        (6, "b1", 422, "bad_schema"),
        (7, "b1", 422, "bad_schema"),
        (8, "b2", 413, "too_large"),
        (9, None, 413, "too_large"),
        (10, "b1", 202, None),
    ]
    written = service.at(found[0])
    assert json.loads(written.value() or b"") == {
        **{name: value for name, value in good.items() if name != "id"},
        "timestamp": 1700000000000,
    }
    deleted = service.at(found[-1])
    assert (deleted.key(), deleted.value()) == (b"b1", None)
    assert (deleted.offset() or 0) > (written.offset() or 0)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_empty_bulk(service: Service, content: bytes) -> None:
    """A bulk without lines has no results."""
    assert bulk(service, content) == []


def test_bulk_keeps_order(service: Service) -> None:
    """Of an id with many lines the last one stands last, and all results are told."""
    content = lines(*({"id": f"o{i % 5}", "text": f"{i}"} for i in range(2000)))
    found = bulk(service, content)
    assert [r["line"] for r in found] == list(range(1, 2001))
    assert {r["status"] for r in found} == {202}
    by_place = {(r["partition"], r["offset"]): r["line"] for r in found}
    for partition in range(2):
        for message in read_all(service.broker, service.documents, partition):
            line = by_place.pop((partition, message.offset() or 0), None)
            if line is not None:
                assert json.loads(message.value() or b"")["text"] == f"{line - 1}"
                assert message.key() == b"o%d" % ((line - 1) % 5)
    assert not by_place


def test_bulk_has_an_end(service: Service) -> None:
    """After the most lines one more result says that this was all."""
    content = lines(*({"id": "e", "text": f"{i}"} for i in range(3500)))
    found = bulk(service, content)
    assert len(found) == 3001
    assert {r["status"] for r in found[:-1]} == {202}
    assert (found[-1]["status"], found[-1]["code"]) == (413, "too_many_lines")


def test_bulk_streams(service: Service) -> None:
    """Results come while lines still go: a client can wait for one before it sends the next."""
    seen: list[dict[str, Any]] = []

    def body() -> Iterator[bytes]:
        yield lines({"id": "s1", "text": "first"})
        deadline = time.monotonic() + 10
        # The server has it before the second line is sent.
        while time.monotonic() < deadline and not seen:
            held = [m for p in range(2) for m in read_all(service.broker, service.documents, p)]
            seen.extend({"id": m.key()} for m in held if m.key() == b"s1")
        yield lines({"id": "s2", "text": "second"})

    found = bulk(service, body())
    assert [r["status"] for r in found] == [202, 202]
    assert seen


def test_bulk_content_type(service: Service) -> None:
    """A bulk says that it is one."""
    answer = httpx.post(f"{service.url}/v1/documents", json={"id": "a", "text": "x"})
    assert problem(answer) == (415, "bad_content_type")


def test_metrics_and_health(service: Service) -> None:
    """What was accepted is counted by topic, requests by route; the broker makes it ready."""
    httpx.delete(f"{service.url}/v1/documents/none")
    told = httpx.get(f"{service.url}/metrics").text
    assert f'headrace_http_accepted_records_total{{topic="{service.documents}"}}' in told
    assert 'route="/v1/documents/{document_id}",status="202"' in told
    latency = 'headrace_http_request_latency_ms_count{route="/v1/documents/{document_id}"'
    assert f'{latency},status="202"}}' in told
    assert "headrace_http_queue_records 0.0" in told
    assert "headrace_http_queue_bytes 0.0" in told
    for path in ("live", "ready"):
        answer = httpx.get(f"{service.url}/health/{path}")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
