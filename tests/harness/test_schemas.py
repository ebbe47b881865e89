"""What breaks a released schema, what does not, and that today's messages break none."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_tools import protoc
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.process import HarnessError
from harness.schemas import breaks, freeze, read, released, today

if TYPE_CHECKING:
    from pathlib import Path

    from google.protobuf.message import Message

SOURCE = """
syntax = "proto3";
package p;
message M {
  string first_name = 1;
  repeated int32 many = 2;
  optional int64 maybe = 3;
  Inner inner = 4;
  oneof choice { string left = 5; string right = 6; }
  Kind kind = 7;
  map<string, int32> counts = 8;
  reserved 20 to 29;
  reserved "old";
  message Inner { bytes b = 1; enum Deep { NONE = 0; SOME = 1; } Deep deep = 2; }
}
enum Kind { UNKNOWN = 0; GOOD = 1; BAD = 2; reserved 9; reserved "UGLY"; }
message Other { string x = 1; }
"""

BREAKS = [
    ("message Other { string x = 1; }", "", "p.Other: the message is gone"),
    ("package p;", "package q;", "p.M: the message is gone"),
    ("string first_name = 1;", "", "field 1, first_name: is gone"),
    ("string first_name = 1;", "reserved 1;", "field 1, first_name: is gone"),
    ("string first_name = 1;", 'reserved "first_name";', "field 1, first_name: is gone"),
    ("string first_name = 1;", "string given = 1;", "field 1, first_name: name was"),
    ("string first_name = 1;", "bytes first_name = 1;", "type was string, is bytes"),
    ("string first_name = 1;", "string first_name = 10;", "the name was that of 1"),
    ("first_name = 1;", 'first_name = 1 [json_name = "first_name"];', "JSON name was firstName"),
    ("string first_name = 1;", "repeated string first_name = 1;", "label was optional"),
    ("string first_name = 1;", "optional string first_name = 1;", "presence was by syntax"),
    ("optional int64 maybe = 3;", "int64 maybe = 3;", "presence was explicit"),
    ("optional int64 maybe = 3;", "optional sint64 maybe = 3;", "type was int64, is sint64"),
    ("repeated int32 many = 2;", "int32 many = 2;", "label was repeated"),
    ("Inner inner = 4;", "Other inner = 4;", "type was message p.M.Inner, is message p.Other"),
    ("string right = 6; }", "} string right = 6;", "oneof was choice, is none"),
    ("string first_name = 1;", "oneof o { string first_name = 1; }", "oneof was none, is o"),
    ("map<string, int32> counts", "map<string, int64> counts", "type was int32, is int64"),
    ("reserved 20 to 29;", "string taken = 25;", "field 25, taken: was reserved"),
    ('reserved "old";', "string old = 30;", "field 30, old: was reserved"),
    ("BAD = 2;", "", "value 2, BAD: is gone"),
    ("BAD = 2;", "reserved 2;", "value 2, BAD: is gone"),
    ("BAD = 2;", "WORSE = 2;", "value 2, BAD: is gone"),
    ("BAD = 2;", 'WORSE = 2; reserved "BAD";', "value 2, WORSE: the number was that of BAD"),
    ("BAD = 2;", "BAD = 3;", "value 2, BAD: is 3"),
    ("reserved 9;", "NINE = 9;", "value 9, NINE: was reserved"),
    ('reserved "UGLY";', "UGLY = 8;", "value 8, UGLY: was reserved"),
    ("SOME = 1;", "", "p.M.Inner.Deep: value 1, SOME: is gone"),
    ("bytes b = 1;", "", "p.M.Inner: field 1, b: is gone"),
]

ADDITIONS = [
    ("string first_name = 1;", "string first_name = 1; string last_name = 10;"),
    ("string first_name = 1;", 'reserved 1; reserved "first_name";'),
    ("string first_name = 1;", "string first_name = 1 [deprecated = true];"),
    ("string right = 6; }", "string right = 6; string middle = 11; }"),
    ("message Inner {", "message Inner { M parent = 3;"),
    ("message Other", "message Another { string x = 1; } message Other"),
    ("BAD = 2;", "BAD = 2; WORSE = 3;"),
    ("BAD = 2;", 'reserved 2; reserved "BAD";'),
    ("enum Kind {", "enum Kind2 { U = 0; } enum Kind {"),
    ("reserved 20 to 29;", "reserved 20 to 40;"),
]


def compiled(source: str, folder: Path, name: str = "m.proto") -> FileDescriptorSet:
    """The descriptor set that protoc makes of a file."""
    (folder / name).write_text(source)
    out = folder / "set.binpb"
    includes = resources.files("grpc_tools") / "_proto"
    options = [f"-I{folder}", f"-I{includes}", f"--descriptor_set_out={out}"]
    assert protoc.main(["protoc", *options, str(folder / name)]) == 0
    return FileDescriptorSet.FromString(out.read_bytes())


def changed(old: str, new: str) -> str:
    """The source with a change in it."""
    assert SOURCE.count(old) == 1, old
    return SOURCE.replace(old, new)


@pytest.mark.parametrize("path", released(), ids=lambda path: path.stem)
def test_today_breaks_no_release(path: Path) -> None:
    """What was made for a released version reads the records of this one."""
    assert breaks(read(path), today()) == []


def test_there_is_a_release() -> None:
    """The releases hold the messages that readers and writers outside rely on."""
    names = {message.name for file in read(released()[0]).file for message in file.message_type}
    assert {"Document", "Embedding", "Chunk", "View", "Inventory"} <= names


@pytest.mark.parametrize(("old", "new", "told"), BREAKS)
def test_each_break_is_found(old: str, new: str, told: str, tmp_path: Path) -> None:
    """Whatever takes something from a reader is named, with its place."""
    found = breaks(compiled(SOURCE, tmp_path), compiled(changed(old, new), tmp_path))
    assert any(told in line for line in found), found


@pytest.mark.parametrize(("old", "new"), ADDITIONS)
def test_additions_pass(old: str, new: str, tmp_path: Path) -> None:
    """What is added, deprecated or reserved takes nothing from anybody."""
    assert breaks(compiled(SOURCE, tmp_path), compiled(changed(old, new), tmp_path)) == []


def test_other_files_and_syntaxes(tmp_path: Path) -> None:
    """Generated code is imported by its file; another syntax has other rules of absence."""
    old = compiled(SOURCE, tmp_path)
    found = breaks(old, compiled(SOURCE, tmp_path, "n.proto"))
    assert "p.M: was in m.proto, is in n.proto" in found
    first = compiled('syntax = "proto3"; package p; message M {}', tmp_path)
    second = compiled('syntax = "proto2"; package p; message M {}', tmp_path)
    assert breaks(first, second) == ["p.M: the syntax of m.proto is another"]


def test_a_field_that_older_records_lack(tmp_path: Path) -> None:
    """A new field that is required refuses all records before it; another default changes them."""
    old = 'syntax = "proto2"; package p; message M { optional int32 a = 1 [default = 4]; }'
    more = old.replace("{ ", "{ required int32 b = 2; ")
    other = old.replace("default = 4", "default = 5")
    first = compiled(old, tmp_path)
    assert "field 2, b: is required" in breaks(first, compiled(more, tmp_path))[0]
    assert "default was 4, is 5" in breaks(first, compiled(other, tmp_path))[0]


def test_a_frozen_version_stays(tmp_path: Path) -> None:
    """A version is frozen once; the same again changes nothing, other messages are refused."""
    schema = compiled(SOURCE, tmp_path)
    path = freeze(schema, "1.2.3", tmp_path / "released")
    assert read(path) == schema
    assert freeze(schema, "1.2.3", tmp_path / "released") == path
    with pytest.raises(HarnessError, match=r"v1\.2\.3\.txtpb: is frozen"):
        freeze(today(), "1.2.3", tmp_path / "released")
    assert read(path) == schema


NAMES = st.sampled_from(["a", "b", "a_b", "note", "vector_2"])
TYPES = st.sampled_from([1, 2, 3, 4, 5, 8, 9, 12, 13, 17])  # scalars, as descriptor.proto has them


@st.composite
def schemas(draw: st.DrawFn) -> FileDescriptorSet:
    """A file of some messages with some fields."""
    file = FileDescriptorProto(name="m.proto", package="p", syntax="proto3")
    for name in draw(st.lists(st.sampled_from("MNO"), min_size=1, unique=True)):
        message = file.message_type.add(name=name)
        for own in draw(st.lists(NAMES, min_size=1, unique=True)):
            free = set(range(1, 40)) - {field.number for field in message.field}
            number = draw(st.sampled_from(sorted(free)))
            label = draw(st.sampled_from([1, 3]))
            message.field.add(name=own, number=number, label=label, type=draw(TYPES))
    return FileDescriptorSet(file=[file])


def _drop(message: DescriptorProto, field: FieldDescriptorProto) -> None:
    message.field.remove(field)


def _rename(_: DescriptorProto, field: FieldDescriptorProto) -> None:
    field.name += "_x"


def _renumber(_: DescriptorProto, field: FieldDescriptorProto) -> None:
    field.number += 100


def _retype(_: DescriptorProto, field: FieldDescriptorProto) -> None:
    field.type = FieldDescriptorProto.TYPE_SFIXED64


def _relabel(_: DescriptorProto, field: FieldDescriptorProto) -> None:
    field.label = 4 - field.label  # type: ignore[assignment] # 1 is optional, 3 repeated


def _reuse(message: DescriptorProto, field: FieldDescriptorProto) -> None:
    message.reserved_name.append(field.name)
    _rename(message, field)


def _spell(_: DescriptorProto, field: FieldDescriptorProto) -> None:
    field.json_name = "other"


def _grow(message: DescriptorProto, _: FieldDescriptorProto) -> None:
    number = 50 + len(message.field)
    message.field.add(name=f"new_{number}", number=number, label=1, type=9)


def _retire(message: DescriptorProto, field: FieldDescriptorProto) -> None:
    message.reserved_range.add(start=field.number, end=field.number + 1)
    message.reserved_name.append(field.name)
    message.field.remove(field)


def _deprecate(_: DescriptorProto, field: FieldDescriptorProto) -> None:
    field.options.deprecated = True


HARMS = [_drop, _rename, _renumber, _retype, _relabel, _reuse, _spell]


def some_field(
    data: st.DataObject, schema: FileDescriptorSet
) -> tuple[DescriptorProto, FieldDescriptorProto]:
    """Any field of any message."""
    places = [(m, f) for file in schema.file for m in file.message_type for f in m.field]
    return data.draw(st.sampled_from(places))


def copied(schema: FileDescriptorSet) -> FileDescriptorSet:
    """The same again."""
    return FileDescriptorSet.FromString(schema.SerializeToString())


@settings(max_examples=50)
@given(schemas(), st.data())
def test_any_harm_is_found(schema: FileDescriptorSet, data: st.DataObject) -> None:
    """One harm among any number of additions is found, wherever it is."""
    new = copied(schema)
    harmed = some_field(data, new)
    for _ in range(data.draw(st.integers(0, 3))):
        _grow(*some_field(data, new))
    data.draw(st.sampled_from(HARMS))(*harmed)
    assert breaks(schema, new)


@settings(max_examples=50)
@given(schemas(), st.data())
def test_any_additions_pass(schema: FileDescriptorSet, data: st.DataObject) -> None:
    """Any number of additions, in any order, breaks nothing; nor does nothing at all."""
    assert breaks(schema, copied(schema)) == []
    new = copied(schema)
    for change in data.draw(st.lists(st.sampled_from([_grow, _deprecate]), max_size=5)):
        change(*some_field(data, new))
    _retire(*some_field(data, new))
    assert breaks(schema, new) == []


def message_of(schema: FileDescriptorSet, name: str) -> type[Message]:
    """A message's class, made from its descriptor."""
    pool = DescriptorPool()
    for file in schema.file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


@settings(max_examples=25)
@given(st.data(), st.binary(max_size=64), st.text(max_size=20), st.integers(0, 2**31))
def test_older_readers_read_newer_records(
    data: st.DataObject, vector: bytes, identity: str, tokens: int
) -> None:
    """A message that grew is read by each released version, with all that the version knows."""
    schema = read(data.draw(st.sampled_from(released())))
    new = copied(schema)
    for message in (m for file in new.file for m in file.message_type):
        _grow(message, message.field[0])
        _grow(message, message.field[0])
    assert breaks(schema, new) == []
    fields = {"id": identity, "vector": vector, "tokens": tokens}
    written = message_of(new, "headrace.v1.Embedding")(**fields)
    known = {field.number for field in written.DESCRIPTOR.fields}
    for field in written.DESCRIPTOR.fields:
        if field.name.startswith("new_"):
            setattr(written, field.name, "later")
    old = message_of(schema, "headrace.v1.Embedding")
    assert known > {field.number for field in old.DESCRIPTOR.fields}
    got = old.FromString(written.SerializeToString())
    assert {name: getattr(got, name) for name in fields} == fields
