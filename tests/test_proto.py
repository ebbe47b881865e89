from importlib import resources
from pathlib import Path

import pytest
from grpc_tools import protoc

from harness.process import ROOT
from headrace.v1 import document_pb2, embedding_pb2

PROTO = ROOT / "proto"
SOURCES = sorted(PROTO.rglob("*.proto"))


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What protoc makes of `proto/` now."""
    folder = tmp_path_factory.mktemp("generated")
    includes = resources.files("grpc_tools") / "_proto"
    options = [f"-I{PROTO}", f"-I{includes}", f"--python_out={folder}", f"--pyi_out={folder}"]
    assert protoc.main(["protoc", *options, *map(str, SOURCES)]) == 0
    return folder


def test_generated_code_is_up_to_date(generated: Path) -> None:
    """`headrace/v1` holds exactly what protoc generates; else run `make proto`."""
    fresh = {path.name: path.read_text() for path in (generated / "headrace/v1").iterdir()}
    kept = {path.name: path.read_text() for path in (ROOT / "headrace/v1").glob("*_pb2.py*")}
    assert len(fresh) == 2 * len(SOURCES)
    assert kept == fresh


def test_absent_fields_are_told_from_empty_ones() -> None:
    """A document without text differs from one with an empty text."""
    absent = document_pb2.Document.FromString(document_pb2.Document().SerializeToString())
    empty = document_pb2.Document.FromString(document_pb2.Document(text="").SerializeToString())
    assert not absent.HasField("text")
    assert empty.HasField("text")


def test_an_embedding_survives_the_wire() -> None:
    """The generated code writes and reads a nested message with large offsets."""
    sent = embedding_pb2.Embedding(
        id="a",
        vector=b"\x00\x00\x80\x3f",
        dtype="float32",
        dimension=1,
        source=embedding_pb2.Source(topic="documents", partition=3, offset=2**40),
    )
    got = embedding_pb2.Embedding.FromString(sent.SerializeToString())
    assert got == sent
    assert got.source.offset == 2**40
