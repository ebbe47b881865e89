"""Schemas and records of them, for the tests of several folders."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from confluent_kafka.schema_registry import (
    RegisteredSchema,
    Schema,
    SchemaReference,
    SchemaRegistryClient,
)
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from clients.registry import Unreadable, schema_id
from clients.registry.protoc import compiled, message_class
from clients.registry.readers import Fetched, Reader, reader_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.registry import Registry

_numbers = itertools.count()

BY_TOPIC = {"subject.name.strategy.type": "TOPIC"}

KEY_AVRO = '{"type": "long"}'
PLACE_AVRO = """
{"type": "record", "name": "Place", "namespace": "shop", "fields": [
  {"name": "city", "type": "string"}]}
"""
NOTE_AVRO = """
{"type": "record", "name": "Note", "namespace": "shop", "fields": [
  {"name": "text", "type": ["null", "string"], "default": null},
  {"name": "metadata", "type": {"type": "record", "name": "About", "fields": [
    {"name": "place", "type": ["null", "shop.Place"], "default": null}]}},
  {"name": "timestamp", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}
"""
NOTE_AVRO_2 = NOTE_AVRO.replace(
    '"name": "About", "fields": [',
    '"name": "About", "fields": [{"name": "stars", "type": "int", "default": 0},',
)
PLACE_PROTO = 'syntax = "proto3"; package shop; message Place { string city = 1; }'
NOTE_PROTO = """
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "shop/place.proto";
message Other { int32 number = 1; }
message Note {
  message About { Place place = 1; int64 stars = 2; }
  string text = 1;
  About metadata = 2;
  google.protobuf.Timestamp timestamp = 3;
}
"""
PLACE_JSON = """
{"$schema": "http://json-schema.org/draft-07/schema#", "title": "Place", "type": "object",
 "properties": {"city": {"type": "string"}}}
"""
NOTE_JSON = """
{"$schema": "http://json-schema.org/draft-07/schema#", "title": "Note", "type": "object",
 "required": ["text"],
 "properties": {"text": {"type": "string"},
   "metadata": {"type": "object", "properties": {"place": {"$ref": "place.json"}}}}}
"""
SAMPLES = {
    "AVRO": b"\x02\x04hi\x02\x06Ulm\x02",
    "PROTOBUF": b"\x02\x02\x0a\x02hi\x12\x09\x0a\x05\x0a\x03Ulm\x10\x05\x1a\x02\x08\x01",
    "JSON": b'{"text": "hi", "metadata": {"place": {"city": "Ulm"}}}',
}
"""A note of each kind of schema, without its frame."""

AT = datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)
AT_MS = 1_767_323_045_600


class Shelf:
    """Subjects of a test's own in a registry, and records of their schemas; to be closed.

    Args:
        registry: The registry.
    """

    def __init__(self, registry: Registry) -> None:
        self.client = SchemaRegistryClient({"url": registry.url})
        self.name = f"shelf{next(_numbers)}"

    def close(self) -> None:
        """Let go of the registry."""
        self.client.close()

    def put(self, kind: str, text: str, references: Sequence[SchemaReference] = ()) -> int:
        """Register a schema under a subject of its own; its id."""
        subject = f"{self.name}-{next(_numbers)}"
        return self.client.register_schema(subject, Schema(text, kind, list(references)))

    def place(self, kind: str, text: str, name: str) -> SchemaReference:
        """Register what others refer to by a name."""
        subject = f"{self.name}-{kind}-place"
        self.client.register_schema(subject, Schema(text, kind))
        return SchemaReference(name, subject, 1)

    def avro(self, text: str, value: Any, references: Sequence[SchemaReference] = ()) -> bytes:
        """A record of an Avro schema, which becomes the next version of one subject."""
        schema = Schema(text, "AVRO", list(references))
        return self._written(AvroSerializer(self.client, schema, conf=BY_TOPIC), value)

    def json(self, text: str, value: Any, references: Sequence[SchemaReference] = ()) -> bytes:
        """A record of a JSON Schema."""
        schema = Schema(text, "JSON", list(references))
        return self._written(JSONSerializer(schema, self.client, conf=BY_TOPIC), value)

    def proto(self, message: Any) -> bytes:
        """A record of a Protobuf message's own schema, as Confluent's client registers it."""
        return self._written(ProtobufSerializer(type(message), self.client, BY_TOPIC), message)

    def notes_place(self) -> SchemaReference:
        """What a note in Avro refers to."""
        return self.place("AVRO", PLACE_AVRO, "shop.Place")

    def notes(self) -> dict[str, bytes]:
        """A note by each kind of schema, with what it refers to in a subject of its own."""
        place = {"city": "Ulm"}
        avro = [self.notes_place()]
        about: dict[str, Any] = {"place": place}
        note = {"text": "A note in Avro.", "metadata": about, "timestamp": AT}
        proto = [self.place("PROTOBUF", PLACE_PROTO, "shop/place.proto")]
        number = self.put("PROTOBUF", NOTE_PROTO, proto)
        made = message_class(compiled(NOTE_PROTO, {"shop/place.proto": PLACE_PROTO}), [1])(
            text="A note in Protobuf.", metadata={"place": place, "stars": 1 << 40}, timestamp=AT
        )
        json = [self.place("JSON", PLACE_JSON, "place.json")]
        return {
            "avro": self.avro(NOTE_AVRO, note, avro),
            "avro2": self.avro(NOTE_AVRO_2, {**note, "metadata": {**about, "stars": 5}}, avro),
            # The second message of the file, in Confluent's framing.
            "proto": framed(number, b"\x02\x02" + made.SerializeToString()),
            "json": self.json(NOTE_JSON, {"text": "A note in JSON.", "metadata": about}, json),
        }

    def _written(self, serialise: Any, value: Any) -> bytes:
        topic = f"{self.name}-{type(serialise).__name__}"
        return bytes(serialise(value, SerializationContext(topic, MessageField.VALUE)))


@dataclass(frozen=True)
class Offline:
    """Reads notes without a registry, by the same readers: 1 is Avro, 2 Protobuf, 3 JSON."""

    readers: Mapping[int, Reader]

    @classmethod
    def made(cls) -> Offline:
        """One that has all kinds."""
        kinds = [
            ("AVRO", NOTE_AVRO, PLACE_AVRO, "shop.Place"),
            ("PROTOBUF", NOTE_PROTO, PLACE_PROTO, "shop/place.proto"),
            ("JSON", NOTE_JSON, PLACE_JSON, "place.json"),
        ]
        return cls(
            {
                number: Reader(f"schema {number}", reader_of(_fetched(*kind)))
                for number, kind in enumerate(kinds, 1)
            }
        )

    def read(self, data: bytes) -> object:
        """What a record holds."""
        reader = self.readers.get(schema_id(data))
        if reader is None:
            raise Unreadable("there is no such schema")
        return reader(data)


def _fetched(kind: str, text: str, place: str, name: str) -> Fetched:
    references = [SchemaReference(name, "place", 1)]
    found = RegisteredSchema(
        subject="place", version=1, schema_id=1, guid=None, schema=Schema(place, kind)
    )
    return Fetched(Schema(text, kind, references), {("place", 1): found})


def framed(number: int, data: bytes) -> bytes:
    """Data in the wire format."""
    return b"\0" + number.to_bytes(4, "big") + data
