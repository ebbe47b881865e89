"""What reads the records of a schema, once all that it refers to is at hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, cast

from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
from confluent_kafka.schema_registry.serde import SchemaId
from referencing import Registry as References
from referencing import Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT7

from clients.registry.protoc import compiled, message_class
from clients.registry.wire import Unreadable, in_short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from confluent_kafka.schema_registry import RegisteredSchema, Schema, SchemaRegistryClient

__all__ = ["Fetched", "Reader", "reader_of"]

# Neither needs a topic, nor asks the registry for anything but the schema of the id.
_BY_ID: Final = {"subject.name.strategy.type": "RECORD"}


@dataclass(frozen=True)
class Fetched:
    """What a deserialiser asks a client for, all of it at hand."""

    schema: Schema
    references: Mapping[tuple[str, int], RegisteredSchema]

    def get_schema(self, *_: object) -> Schema:
        """The one schema that there is."""
        return self.schema

    def get_version(self, subject: str, version: int, *_: object) -> RegisteredSchema:
        """A schema that it refers to, by whatever way."""
        return self.references[subject, version]

    def config(self) -> dict[str, object]:
        """No options: none is asked for."""
        return {}

    @property
    def client(self) -> SchemaRegistryClient:
        """Itself, as deserialisers want it."""
        return cast("SchemaRegistryClient", self)

    def named(self) -> Iterator[tuple[str, str]]:
        """The texts of the schemas that it refers to, by the names that it has for them."""
        for one in (self.schema, *(found.schema for found in self.references.values())):
            for reference in one.references or ():
                found = self.references[str(reference.subject), int(reference.version or 0)]
                yield str(reference.name), str(found.schema.schema_str)


@dataclass(frozen=True)
class Reader:
    """Reads the records of a schema.

    Args:
        name: The schema's, for a person.
        deserialise: Confluent's deserialiser, or what chooses one.
    """

    name: str
    deserialise: Callable[[bytes], object]

    def __call__(self, data: bytes) -> object:
        """What a record holds.

        Raises:
            Unreadable: It does not fit.
        """
        try:
            return self.deserialise(data)
        except Exception as error:  # whatever its parsers have; it is about the record
            raise Unreadable(f"{self.name}: does not fit: {in_short(error)}") from error


def reader_of(fetched: Fetched) -> Callable[[bytes], object]:
    """What reads the records of a schema, by its kind."""
    read: Callable[[bytes], object]
    match fetched.schema.schema_type:
        case "AVRO":
            read = AvroDeserializer(fetched.client, conf=_BY_ID)
        case "JSON":
            _check_references(fetched)
            read = JSONDeserializer(None, schema_registry_client=fetched.client, conf=_BY_ID)
        case "PROTOBUF":
            read = _Messages(fetched)
        case kind:
            raise ValueError(f"{kind} is none of AVRO, JSON and PROTOBUF")
    return read


class _Messages:
    """Reads records of a Protobuf schema: each names one of its messages.

    Args:
        fetched: The schema.
    """

    def __init__(self, fetched: Fetched) -> None:
        text = str(fetched.schema.schema_str)
        self._file = compiled(text, dict(fetched.named()))
        self._known: dict[tuple[int, ...], ProtobufDeserializer] = {}

    def __call__(self, data: bytes) -> object:
        """The message of a record."""
        told = SchemaId("PROTOBUF")
        told.from_bytes(BytesIO(data))
        indexes = tuple(told.message_indexes or ())
        known = self._known.get(indexes)
        if known is None:
            message = message_class(self._file, indexes)
            known = self._known[indexes] = ProtobufDeserializer(message, _BY_ID)
        return known(data)


def _check_references(fetched: Fetched) -> None:
    """See that a JSON Schema refers to nothing but what the registry has.

    What else it refers to, the deserialiser would fetch from wherever the schema says.

    Raises:
        ValueError: It does.
    """
    references: Any = References()
    for name, text in fetched.named():
        references = references.with_resource(name, _resource(text))
    for text in (str(fetched.schema.schema_str), *(text for _, text in fetched.named())):
        resource = _resource(text)
        _follow(resource, references.resolver_with_root(resource))


def _resource(text: str) -> Any:  # noqa: ANN401 - generic in what it holds
    contents = json.loads(text)
    return Resource.from_contents(contents, default_specification=DRAFT7)


def _follow(resource: Any, resolver: Any) -> None:  # noqa: ANN401 - generic in what they hold
    contents = resource.contents
    if isinstance(contents, dict) and isinstance(contents.get("$ref"), str):
        try:
            resolver.lookup(contents["$ref"])
        except Unresolvable:
            told = f"$ref {contents['$ref']!r} is neither in it nor among its references"
            raise ValueError(told) from None
    for inner in resource.subresources():
        _follow(inner, resolver.in_subresource(inner))
