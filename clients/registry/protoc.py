"""Schemas of Protobuf as a registry holds them, compiled at run time by protoc.

protoc runs in a process of its own: a schema comes from outside, and must not end the flow.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from base64 import b64decode
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from google.protobuf.descriptor import Descriptor, FileDescriptor
    from google.protobuf.message import Message

__all__ = ["ProtocError", "compiled", "message_class"]

COMPILE_S: Final = 30.0

_MAIN: Final = "headrace.registered.proto"
_GIVEN: Final = "given.pb"
_MADE: Final = "made.pb"
_PACKAGES: Final = {
    "confluent": "confluent_kafka.schema_registry.confluent",
    "google/type": "google.type",
}
_PACKAGED: Final = re.compile(rf"({'|'.join(_PACKAGES)})/([a-z_/]+)\.proto")
_IMPORT: Final = re.compile(
    r"""(?:^|;)\s*import\s+(?:public\s+|weak\s+)?["']([^"']+)["']""", re.MULTILINE
)


class ProtocError(Exception):
    """A schema can't be compiled; the text says why, in one line."""


def compiled(schema: str, imports: Mapping[str, str]) -> FileDescriptor:
    """A schema, in a pool of its own with all that it imports.

    Args:
        schema: Its source text, or a serialised descriptor in base64, which registries give, too.
        imports: The schemas that it and they import, by the name in the import.

    Raises:
        ProtocError: It can't be compiled.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-protoc-") as name:
        folder = Path(name)
        texts = {_MAIN: schema, **imports}
        given = FileDescriptorSet()
        for path, text in texts.items():
            _put(folder, path, text, given)
        given.file.extend(_installed(texts))
        (folder / _GIVEN).write_bytes(given.SerializeToString())
        _run(folder)
        made = FileDescriptorSet.FromString((folder / _MADE).read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in made.file:
        pool.Add(file)
    return pool.FindFileByName(_MAIN)


def message_class(file: FileDescriptor, indexes: Sequence[int]) -> type[Message]:
    """The class of the message that a record's indexes name: in the file, then in that message.

    Raises:
        ProtocError: There is none.
    """
    inside: Sequence[Descriptor] = list(file.message_types_by_name.values())
    found: Descriptor | None = None
    for index in indexes:
        if not 0 <= index < len(inside):
            raise ProtocError(f"has no message of indexes {list(indexes)}")
        found = inside[index]
        inside = found.nested_types
    if found is None:
        raise ProtocError("no message is named")
    return GetMessageClass(found)


def _put(folder: Path, name: str, text: str, given: FileDescriptorSet) -> None:
    """Write a source text into the folder, or add a descriptor to those that are given."""
    if ";" not in text and "{" not in text:
        try:
            file = FileDescriptorProto.FromString(b64decode(text, validate=True))
        except (ValueError, DecodeError):
            raise ProtocError("is neither a source text nor a descriptor in base64") from None
        file.name = name
        given.file.append(file)
        return
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ProtocError(f"{name!r} is no name of a file to import")
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


def _installed(texts: Mapping[str, str]) -> Iterable[FileDescriptorProto]:
    """What is imported and comes with an installed package, such as `google/type/money.proto`."""
    found: dict[str, FileDescriptorProto] = {}
    wanted = [name for text in texts.values() for name in _IMPORT.findall(text)]
    while wanted:
        name = wanted.pop()
        if name in found or name in texts or name.startswith("google/protobuf/"):
            continue
        file = _packaged(name)
        if file is not None:
            found[name] = FileDescriptorProto.FromString(file.serialized_pb)
            wanted += found[name].dependency
    return found.values()


def _packaged(name: str) -> FileDescriptor | None:
    """What is imported by a name, of an installed package; None where protoc is to name it."""
    match = _PACKAGED.fullmatch(name)
    if match is None:
        return None
    folder, rest = match.groups()
    try:
        module = import_module(f"{_PACKAGES[folder]}.{rest.replace('/', '.')}_pb2")
    except ModuleNotFoundError:
        return None
    file: FileDescriptor = module.DESCRIPTOR
    return file


def _run(folder: Path) -> None:
    tools = find_spec("grpc_tools")
    assert tools is not None
    assert tools.submodule_search_locations
    own = Path(tools.submodule_search_locations[0]) / "_proto"
    command = [sys.executable, "-I", "-m", "grpc_tools.protoc", f"--proto_path={folder}"]
    command += [f"--proto_path={own}", f"--descriptor_set_in={folder / _GIVEN}"]
    command += ["--include_imports", f"--descriptor_set_out={folder / _MADE}", _MAIN]
    try:
        told = subprocess.run(  # noqa: S603 - a fixed command line, of files of our own
            command, capture_output=True, text=True, timeout=COMPILE_S, cwd=folder, check=False
        )
    except subprocess.TimeoutExpired:
        raise ProtocError(f"protoc took over {COMPILE_S:.0f} s") from None
    if told.returncode:
        lines = [line for line in told.stderr.splitlines() if "warning" not in line]
        raise ProtocError((lines or [f"protoc ended with {told.returncode}"])[0])
