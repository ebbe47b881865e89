"""Released schemas: the messages of each version as they were, and what a change breaks of them.

A release is a `FileDescriptorSet` in Protobuf's text form, in `proto/released/`: a person can read
it, and so can a program in any language that has Protobuf.

Run it with `python -m harness.schemas` to freeze the messages of today as those of the version in
`pyproject.toml`.
"""

from __future__ import annotations

import pkgutil
import sys
import tomllib
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final

from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

import headrace.v1
from harness.process import ROOT, HarnessError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from google.protobuf.descriptor import FileDescriptor

__all__ = ["RELEASED", "breaks", "freeze", "read", "released", "today"]

RELEASED: Final = ROOT / "proto" / "released"

Traits = dict[str, object]


def today() -> FileDescriptorSet:
    """The messages that the code has now, each file behind those that it imports."""
    files: dict[str, FileDescriptorProto] = {}
    for module in pkgutil.iter_modules(headrace.v1.__path__):
        if module.name.endswith("_pb2"):
            _collect(import_module(f"headrace.v1.{module.name}").DESCRIPTOR, files)
    return FileDescriptorSet(file=files.values())


def read(path: Path) -> FileDescriptorSet:
    """A release's messages."""
    return text_format.Parse(path.read_text(encoding="utf-8"), FileDescriptorSet())


def released(folder: Path = RELEASED) -> Sequence[Path]:
    """The files of all releases."""
    return sorted(folder.glob("*.txtpb"))


def freeze(schema: FileDescriptorSet, version: str, folder: Path = RELEASED) -> Path:
    """Keep messages as those of a version.

    Returns:
        The file that holds them.

    Raises:
        HarnessError: That version is frozen with others.
    """
    path = folder / f"v{version}.txtpb"
    head = f"# The messages of Headrace {version}: a google.protobuf.FileDescriptorSet.\n"
    text = head + text_format.MessageToString(schema)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise HarnessError(
            f"{path.name}: is frozen with other messages; raise version in pyproject.toml, or "
            "remove the file if that version was never published"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def breaks(old: FileDescriptorSet, new: FileDescriptorSet) -> list[str]:
    """What programs made for the old messages lose with the new ones, a line for each loss.

    Messages, fields, enums and their values are held against each other; there are no services
    and no extensions. Additions break nothing. What is removed does not either, as long as its
    number and its name are reserved.
    """
    found: list[str] = []
    messages, enums = dict(_messages(new)), dict(_enums(new))
    for name, (file, message) in _messages(old):
        if name not in messages:
            found.append(f"{name}: the message is gone")
            continue
        there, now = messages[name]
        found += _moved(name, file, there)
        found += _broken(name, _Fields.of(message), _Fields.of(now))
    for name, (file, enum) in _enums(old):
        if name not in enums:
            found.append(f"{name}: the enum is gone")
            continue
        there, current = enums[name]
        found += _moved(name, file, there)
        found += _broken_values(name, enum, current)
    return found


def _collect(file: FileDescriptor, files: dict[str, FileDescriptorProto]) -> None:
    if file.name in files:
        return
    for imported in file.dependencies:
        _collect(imported, files)
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    files[file.name] = proto


def _messages(
    schema: FileDescriptorSet,
) -> Iterator[tuple[str, tuple[FileDescriptorProto, DescriptorProto]]]:
    """All messages, by full name, those within others too."""
    for file in schema.file:
        todo = [(file.package, message) for message in file.message_type]
        while todo:
            scope, message = todo.pop(0)
            name = f"{scope}.{message.name}".lstrip(".")
            yield name, (file, message)
            todo += [(name, inner) for inner in message.nested_type]


def _enums(
    schema: FileDescriptorSet,
) -> Iterator[tuple[str, tuple[FileDescriptorProto, EnumDescriptorProto]]]:
    """All enums, by full name, those within messages too."""
    for file in schema.file:
        for enum in file.enum_type:
            yield f"{file.package}.{enum.name}".lstrip("."), (file, enum)
    for name, (file, message) in _messages(schema):
        for enum in message.enum_type:
            yield f"{name}.{enum.name}", (file, enum)


def _moved(name: str, old: FileDescriptorProto, new: FileDescriptorProto) -> Iterator[str]:
    """Generated code is imported by its file, and the syntax says what is absent."""
    if old.name != new.name:
        yield f"{name}: was in {old.name}, is in {new.name}"
    if (old.syntax or "proto2", old.edition) != (new.syntax or "proto2", new.edition):
        yield f"{name}: the syntax of {new.name} is another"


@dataclass(frozen=True)
class _Fields:
    """A message's fields by number, and what it has reserved."""

    traits: Mapping[int, Traits]
    numbers: Collection[range]
    names: Collection[str]

    @classmethod
    def of(cls, message: DescriptorProto) -> _Fields:
        return cls(
            {field.number: _traits(field, message) for field in message.field},
            [range(own.start, own.end) for own in message.reserved_range],
            set(message.reserved_name),
        )

    def reserves(self, number: int) -> bool:
        return any(number in own for own in self.numbers)


def _traits(field: FieldDescriptorProto, message: DescriptorProto) -> Traits:
    """What a reader of a field relies on."""
    in_oneof = field.HasField("oneof_index") and not field.proto3_optional
    kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    label = FieldDescriptorProto.Label.Name(field.label).removeprefix("LABEL_").lower()
    return {
        "name": field.name,
        "JSON name": field.json_name or _camel(field.name),
        "type": f"{kind} {field.type_name.lstrip('.')}".strip(),
        "label": label,
        "presence": "explicit" if field.proto3_optional else "by syntax",
        "oneof": message.oneof_decl[field.oneof_index].name if in_oneof else "none",
        "default": field.default_value or "none",
    }


def _camel(name: str) -> str:
    """A field's name in JSON, unless it says another."""
    first, *others = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in others)


def _broken(where: str, old: _Fields, new: _Fields) -> Iterator[str]:
    for number, traits in old.traits.items():
        name = traits["name"]
        now = new.traits.get(number)
        if now is not None:
            for trait, was in traits.items():
                if now[trait] != was:
                    yield f"{where}: field {number}, {name}: {trait} was {was}, is {now[trait]}"
        elif not (new.reserves(number) and name in new.names):
            yield f"{where}: field {number}, {name}: is gone and not reserved, number and name"
    numbers = {traits["name"]: number for number, traits in old.traits.items()}
    for number, traits in new.traits.items():
        name = traits["name"]
        if old.reserves(number) or name in old.names:
            yield f"{where}: field {number}, {name}: was reserved"
        if numbers.get(name, number) != number:
            yield f"{where}: field {number}, {name}: the name was that of {numbers[name]}"
        if number not in old.traits and traits["label"] == "required":
            yield f"{where}: field {number}, {name}: is required, and older records have none"


def _broken_values(where: str, old: EnumDescriptorProto, new: EnumDescriptorProto) -> Iterator[str]:
    now = {value.name: value.number for value in new.value}
    had = {value.name for value in old.value}
    for value in old.value:
        label = f"{where}: value {value.number}, {value.name}"
        if value.name in now:
            if now[value.name] != value.number:
                yield f"{label}: is {now[value.name]}"
            continue
        kept = any(now.get(other.name) == value.number for other in old.value)
        if not (kept or _reserves(new, value.number)) or value.name not in new.reserved_name:
            yield f"{label}: is gone and not reserved, number and name"
    for value in new.value:
        if value.name in old.reserved_name or _reserves(old, value.number):
            yield f"{where}: value {value.number}, {value.name}: was reserved"
        gone = {own.name for own in old.value if own.number == value.number} - now.keys()
        if value.name not in had and gone:
            yield f"{where}: value {value.number}, {value.name}: the number was that of {min(gone)}"


def _reserves(enum: EnumDescriptorProto, number: int) -> bool:
    # Unlike a message's, an enum's ranges include their end.
    return any(own.start <= number <= own.end for own in enum.reserved_range)


def main() -> int:
    """Freeze the messages of today, unless they break a release."""
    schema = today()
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    found = [f"{path.name}: {line}" for path in released() for line in breaks(read(path), schema)]
    if found:
        sys.stderr.write("\n".join(found) + "\n")
        return 1
    try:
        path = freeze(schema, version)
    except HarnessError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
