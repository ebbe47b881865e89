from __future__ import annotations

import json
import threading
import time
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer

from clients.errors import RegistryError
from clients.registry import Registry, Unreadable, client, schema_id
from flows.registering import embedding_schema
from harness.process import HOST
from headrace.errors import UsageError
from headrace.v1.embedding_pb2 import Embedding
from tests.registries import BY_TOPIC, NOTE_JSON, PLACE_JSON, Shelf, framed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.registry import Registry as Server

SECRET = "u:hunter2"  # noqa: S105 - it is none
SCHEMA = {"schema": '"string"'}
AVRO_X = b"\x02x"
"""The string x, in Avro."""

MISSING = (404, {"error_code": 40403, "message": "Schema 9 not found"})
Answer = tuple[int, Any]


class Desk:
    """Answers as a registry might that can't be had here: one that refuses, fails, is none.

    Attributes:
        answers: For each path what is answered, the last again and again.
        asked: The paths that were asked for.
    """

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.asked: list[str] = []
        desk = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = urlsplit(self.path).path
                desk.asked.append(path)
                status, body = desk.answer(path)
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer((HOST, 0), Handler)
        self.url = f"http://{HOST}:{self.server.server_address[1]}"

    def answer(self, path: str) -> Answer:
        """The next answer; a 404 without a registry's code where there is none."""
        left = self.answers.get(path, [(404, {"error_code": 404, "message": "HTTP 404"})])
        return left.pop(0) if len(left) > 1 else left[0]

    def has(self, number: int, *answers: Answer) -> str:
        """Give answers to a question for a schema; the path of that."""
        path = f"/schemas/ids/{number}"
        self.answers[path] = list(answers) or [(200, SCHEMA)]
        return path


@contextmanager
def running() -> Iterator[Desk]:
    """A desk that is open."""
    desk = Desk()
    thread = threading.Thread(target=desk.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield desk
    finally:
        desk.server.shutdown()
        thread.join()
        desk.server.server_close()


@pytest.fixture
def desk() -> Iterator[Desk]:
    """An open desk."""
    with running() as own:
        yield own


@contextmanager
def reading(url: str, outage_s: float = 10.0, **more: Any) -> Iterator[Registry]:
    """A client of a registry."""
    with closing(Registry(url, {"basic.auth.user.info": SECRET}, outage_s, **more)) as own:
        yield own


def fault(registry: Registry, data: bytes) -> str:
    """How a record is refused: in one line."""
    with pytest.raises(Unreadable) as told:
        registry.read(data)
    assert len(str(told.value).splitlines()) == 1
    return str(told.value)


def failure(registry: Registry, data: bytes) -> str:
    """How a flow ends: in one line without secrets."""
    with pytest.raises(RegistryError) as told:
        registry.read(data)
    assert len(str(told.value).splitlines()) == 1
    assert "hunter2" not in str(told.value)
    return str(told.value)


def test_a_schema_is_asked_for_once(desk: Desk) -> None:
    """However many records it has; and what is loaded is read with the registry gone."""
    path = desk.has(7)
    with reading(desk.url) as registry:
        registry.load(7)
        asked = len(desk.asked)
        desk.has(7, (503, {}))
        assert [registry.read(framed(7, AVRO_X)) for _ in range(3)] == ["x"] * 3
    assert desk.asked.count(path) == 1
    assert len(desk.asked) == asked


def test_threads_ask_once(desk: Desk) -> None:
    """Threads that need a schema at the same time share one question."""
    path = desk.has(7)
    with reading(desk.url) as registry:
        threads = [threading.Thread(target=registry.load, args=(7,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert desk.asked.count(path) == 1


def test_what_is_kept_is_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many the oldest schema is let go of, and asked for again when it is needed."""
    monkeypatch.setattr(client, "MOST_SCHEMAS", 2)
    paths = [desk.has(number) for number in range(3)]
    with reading(desk.url) as registry:
        for number in (0, 1, 2, 2, 0):
            assert registry.read(framed(number, AVRO_X)) == "x"
        assert len(registry._readers) == 2
        for number in range(10, 20):
            desk.has(number, MISSING)
            fault(registry, framed(number, AVRO_X))
        assert len(registry._faults) <= 2
    assert [desk.asked.count(path) for path in paths] == [2, 1, 1]


def test_an_unknown_id(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its record is refused, at once and without a question each; later it may be known."""
    path = desk.has(9, MISSING)
    with reading(desk.url) as registry:
        registry.load(9)
        told = {fault(registry, framed(9, AVRO_X)) for _ in range(3)}
        assert told == {"schema 9: the registry has none: Schema 9 not found"}
        assert desk.asked.count(path) == 1
        desk.has(9)
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + client.UNKNOWN_S)
        assert registry.read(framed(9, AVRO_X)) == "x"


def test_subjects_are_named_where_the_registry_tells_them(desk: Desk) -> None:
    """A record that does not fit names its schema's id and subjects; a registry may tell none."""
    desk.has(7)
    desk.has(8)
    subjects = [{"subject": f"notes{number}-value", "version": number} for number in range(5)]
    desk.answers["/schemas/ids/8/versions"] = [(200, subjects)]
    with reading(desk.url) as registry:
        assert fault(registry, framed(7, b"\x40x")).startswith("schema 7: does not fit: ")
        named = ", ".join(f"notes{number}-value version {number}" for number in range(3))
        assert fault(registry, framed(8, b"\x40x")).startswith(f"schema 8 ({named}): does not fit:")


def test_a_registry_that_is_away_for_a_while(desk: Desk) -> None:
    """It is asked again until it answers, and the flow's health is told once of each change."""
    desk.has(7, (503, {}), (429, {}), (500, b"<html>"), (200, b"<html>"), (200, SCHEMA))
    pauses: list[float] = []
    told: list[bool] = []

    def hear(*, away: bool) -> None:
        told.append(away)

    with reading(desk.url, pause=pauses.append, told=hear) as registry:
        registry.load(7)
        assert registry.read(framed(7, AVRO_X)) == "x"
    assert len(pauses) == 4
    assert told == [True, False]


def test_a_registry_that_stays_away() -> None:
    """After `outage_s` the error names the setting, the address, what was asked and why."""
    with running() as desk:
        url = desk.url
    with reading(url, 0.3) as registry:
        told = failure(registry, framed(7, AVRO_X))
    assert told.startswith(f"registry.url: {url}: schema 7: no answer for 0 s: ")
    assert "refused" in told


def test_a_registry_that_hangs() -> None:
    """A call ends by its time-out; a client's option may set another."""
    with ThreadingHTTPServer((HOST, 0), BaseHTTPRequestHandler) as server:
        url = f"http://{HOST}:{server.server_address[1]}"
        with closing(Registry(url, {"timeout": "0.1"}, 0.3)) as registry:
            assert "no answer" in failure(registry, framed(7, AVRO_X))


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_login(desk: Desk, status: int) -> None:
    """It ends at once, by the name of the setting."""
    desk.has(7, (status, {"error_code": status, "message": f"no {SECRET} here"}))
    with reading(desk.url) as registry:
        told = failure(registry, framed(7, AVRO_X))
    assert told.startswith(f"registry.client: {desk.url}: refused: no … here; set registry.client.")


@pytest.mark.parametrize("body", [b"<html>", {"error_code": 404, "message": "HTTP 404 Not Found"}])
def test_a_server_that_is_no_registry(desk: Desk, body: object) -> None:
    """Of a wrong address no record is to blame: it ends, and makes no dead letters."""
    desk.has(7, (404, body))
    desk.answers["/schemas/types"] = [(404, body)]
    with reading(desk.url) as registry:
        told = failure(registry, framed(7, AVRO_X))
        assert told.startswith(f"registry.url: {desk.url}: answers 404, as no schema registry does")
        with pytest.raises(RegistryError, match="as no schema registry does"):
            registry.types()


@pytest.mark.parametrize(
    "options",
    [
        {"basic.auth.user.info": "hunter2"},
        {"ssl.ca.location": "/hunter2"},
        {"bearer": "hunter2"},
        {"max.retries": "hunter2"},
    ],
)
def test_wrong_options(options: dict[str, str]) -> None:
    """What the client refuses is told by the setting, without its value."""
    with pytest.raises(UsageError, match=r"^registry.client: ") as told:
        Registry("http://localhost", options)
    assert "hunter2" not in str(told.value)


def test_kinds(registry: Server) -> None:
    """A real registry gives Avro of two versions, Protobuf and JSON, with what they refer to."""
    with closing(Shelf(registry)) as shelf, reading(registry.url) as own:
        notes = {name: own.read(data) for name, data in shelf.notes().items()}
        assert {"AVRO", "JSON", "PROTOBUF"} <= set(own.types())
    avro, avro2, message, note = (notes[name] for name in ("avro", "avro2", "proto", "json"))
    place = {"place": {"city": "Ulm"}}
    assert isinstance(avro, dict)
    assert isinstance(avro2, dict)
    assert isinstance(note, dict)
    assert avro["metadata"] == note["metadata"] == place
    assert avro2["metadata"] == {**place, "stars": 5}
    assert message.metadata.place.city == "Ulm"  # type: ignore[attr-defined]


def test_what_does_not_fit(registry: Server) -> None:
    """A record that was cut, or breaks its schema, or names no message, names that schema."""
    with closing(Shelf(registry)) as shelf, reading(registry.url) as own:
        notes = shelf.notes()
        for data in (
            notes["avro"][:8],
            notes["avro"][:5],
            notes["proto"][:5],
            notes["proto"][:5] + b"\x02\x08",
            notes["proto"][:7] + b"\x0a\xff",
            notes["json"][:5] + b"{",
            notes["json"][:5] + b'{"text": 1}',
            notes["json"][:5] + b'{"text": "x", "metadata": {"place": {"city": 1}}}',
        ):
            assert ": does not fit: " in fault(own, data)
        assert "the registry has none" in fault(own, framed(987_654, b"x"))


def test_schemas_that_can_not_be_used(registry: Server) -> None:
    """What is neither in a JSON Schema nor among its references is never fetched from elsewhere."""
    with closing(Shelf(registry)) as shelf, reading(registry.url) as own, running() as desk:
        desk.answers["/place.json"] = [(200, PLACE_JSON.encode())]
        away = NOTE_JSON.replace("place.json", f"{desk.url}/place.json")
        told = fault(own, framed(shelf.put("JSON", away), b'{"text": "x", "metadata": {}}'))
        assert "neither in it nor among its references" in told
        assert not desk.asked


def test_framing(registry: Server) -> None:
    """A topic's schema is registered once; where that is switched off it must be there."""
    schema = embedding_schema()
    with closing(Shelf(registry)) as shelf, reading(registry.url) as own:
        topic = shelf.name
        assert not own.has(topic, schema)
        with pytest.raises(RegistryError, match=r"^embeddings.register_schema: false: subject "):
            own.framing(topic, schema, register=False)
        framing = own.framing(topic, schema, register=True)
        assert own.has(topic, schema)
        assert own.framing(topic, schema, register=False) == framing
        assert own.framing(topic, schema, register=True) == framing
        read = ProtobufDeserializer(Embedding, BY_TOPIC, None)
        assert read(framing + Embedding(id="a").SerializeToString()) == Embedding(id="a")
        own.load(schema_id(framing + b"x"))
        assert own.read(framing + Embedding(id="a").SerializeToString()).id == "a"  # type: ignore[attr-defined]


def test_the_schema_may_grow(registry: Server) -> None:
    """Where versions must be compatible, a field more is allowed, another type is not."""
    schema = embedding_schema()
    before = schema.replace("  string metadata_json = 12;", "")
    other = schema.replace("string id = 1", "int32 id = 1")
    assert len({schema, before, other}) == 3
    with closing(Shelf(registry)) as shelf, reading(registry.url) as own:
        own.framing(shelf.name, before, register=True)
        shelf.client.set_compatibility(f"{shelf.name}-value", "FULL")
        assert own.framing(shelf.name, schema, register=True)
        with pytest.raises(RegistryError, match=f"subject {shelf.name}-value: .* must be allowed"):
            own.framing(shelf.name, other, register=True)
