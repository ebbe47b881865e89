from __future__ import annotations

from base64 import b64encode

import pytest

from clients.registry.protoc import ProtocError, compiled, message_class
from headrace.v1 import document_pb2, embedding_pb2
from tests.registries import NOTE_PROTO, PLACE_PROTO

MONEY = (
    'syntax = "proto3"; import "google/type/money.proto"; message M { google.type.Money m = 1; }'
)
DECIMAL = (
    'syntax = "proto3"; import "confluent/type/decimal.proto";'
    "message M { confluent.type.Decimal m = 1; }"
)


def in_base64(module: object) -> str:
    """A file's descriptor as Confluent's client for Python registers it."""
    return b64encode(module.DESCRIPTOR.serialized_pb).decode()  # type: ignore[attr-defined]


def test_imports() -> None:
    """A schema that imports another of the registry and one of Protobuf's own is compiled."""
    file = compiled(NOTE_PROTO, {"shop/place.proto": PLACE_PROTO})
    note = message_class(file, [1])(text="x", metadata={"place": {"city": "Ulm"}})
    assert note.DESCRIPTOR.full_name == "shop.Note"
    assert type(note).FromString(note.SerializeToString()) == note
    assert message_class(file, [1, 0]).DESCRIPTOR.full_name == "shop.Note.About"


@pytest.mark.parametrize("schema", [MONEY, DECIMAL])
def test_what_comes_with_packages(schema: str) -> None:
    """Google's and Confluent's own types are there without being registered."""
    assert compiled(schema, {}).message_types_by_name["M"].fields_by_name["m"]


def test_descriptors() -> None:
    """A schema may be a serialised descriptor, and so may what a source text imports."""
    assert message_class(compiled(in_base64(embedding_pb2), {}), [0]).DESCRIPTOR.full_name == (
        embedding_pb2.Embedding.DESCRIPTOR.full_name
    )
    text = (
        'syntax = "proto3"; import "headrace/v1/document.proto";'
        "message Two { headrace.v1.Document document = 1; }"
    )
    file = compiled(text, {"headrace/v1/document.proto": in_base64(document_pb2)})
    inner = file.message_types_by_name["Two"].fields_by_name["document"].message_type
    assert inner is not None
    assert inner.full_name == "headrace.v1.Document"


def test_pools_are_apart() -> None:
    """Two versions of one message are two classes, of which each knows its own fields."""
    first, second = (
        message_class(compiled(f'syntax = "proto3"; message M {{ {field} }}', {}), [0])
        for field in ("string a = 1;", "string a = 1; string b = 2;")
    )
    assert [len(one.DESCRIPTOR.fields) for one in (first, second)] == [1, 2]


@pytest.mark.parametrize(
    ("schema", "imports", "told"),
    [
        ('syntax = "proto3"; message {', {}, "Expected message name"),
        ('syntax = "proto3"; import "gone.proto";', {}, "gone.proto"),
        ('syntax = "proto3";', {"../../out.proto": PLACE_PROTO}, "no name of a file"),
        ('syntax = "proto3";', {"/out.proto": PLACE_PROTO}, "no name of a file"),
        ("AAAA", {}, "neither"),
        ("é", {}, "neither"),
    ],
)
def test_what_can_not_be_compiled(schema: str, imports: dict[str, str], told: str) -> None:
    """A broken schema, one that is not there, and a name outside are refused in one line."""
    with pytest.raises(ProtocError, match=told) as error:
        compiled(schema, imports)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("indexes", [[], [2], [-1], [1, 0, 0], [1, 7]])
def test_no_such_message(indexes: list[int]) -> None:
    """Indexes that name no message are refused."""
    file = compiled(NOTE_PROTO, {"shop/place.proto": PLACE_PROTO})
    with pytest.raises(ProtocError):
        message_class(file, indexes)
