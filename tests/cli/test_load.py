from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cli.broker import connect, records
from cli.errors import CommandError
from cli.load import _lines
from flows.settings import load as load_settings
from operators.documents import Decoder
from operators.records import Lane
from tests.cli.conftest import headrace, lines

if TYPE_CHECKING:
    from operators.lines import LineRecord

NO_FILE = Path("/nowhere")  # holds no settings file


def parsed(text: bytes, limit: int = 1024) -> list[LineRecord]:
    """The records that a file's lines stand for."""
    decoder = Decoder({"price": "float64"}, limit)
    return [record for _, record in _lines(io.BytesIO(text), "x.jsonl", decoder)]


def read_all(env: dict[str, str]) -> list[tuple[bytes | None, Any]]:
    """What the source topic holds."""
    settings = load_settings(env, NO_FILE)
    kafka = connect(settings)
    [topic] = settings.source.topics
    return [
        (record.key, None if record.value is None else json.loads(record.value))
        for partition in kafka.partitions({topic})[topic]
        for record in records(kafka, Lane(topic, partition))
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"id": "a", "text": "x"}', {"text": "x"}),
        (
            '{"id": "a", "text": "x", "metadata": {"n": 1}, "timestamp": 5}',
            {"text": "x", "metadata": {"n": 1}, "timestamp": 5},
        ),
        ('{"id": "a", "metadata": {"n": 1}}', {"metadata": {"n": 1}}),
        ('{"id": "a", "text": null, "metadata": {"n": 1}}', {"metadata": {"n": 1}}),
        ('{"id": "a", "text": null}', None),
        ('{"id": "a", "deleted": true}', None),
        ('{"id": "a", "text": "x", "deleted": false}', {"text": "x"}),
    ],
)
def test_lines(text: str, value: object) -> None:
    """A line becomes the record that the flow reads: upsert, metadata only, or deletion."""
    [line] = parsed(b"\xef\xbb\xbf" + text.encode() + b"\r\n\n")
    assert line.key == b"a"
    assert (None if line.value is None else json.loads(line.value)) == value


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"nope", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"text": "x"}', "has no id"),
        (b'{"id": 7, "text": "x"}', "id must be a string"),
        (b'{"id": "", "text": "x"}', "bad_key"),
        (b'{"id": "a"}', "no_text"),
        (b'{"id": "a", "text": " "}', "no_text"),
        (b'{"id": "a", "text": 1}', "bad_schema"),
        (b'{"id": "a", "txt": "x"}', "txt: there is no such field"),
        (b'{"id": "a", "text": "x", "deleted": true}', "is deleted"),
        (b'{"id": "a", "deleted": "true"}', "deleted must be"),
        (b'{"id": "a", "text": "x", "timestamp": "now"}', "timestamp"),
        (b'{"id": "a", "text": "x", "metadata": {"price": "high"}}', "price"),
        (b'{"id": "a", "metadata": {"n": %s1%s}}' % (b"[" * 500, b"]" * 500), "can't be kept"),
        (b'{"id": "a", "text": "%s"}' % (b"x" * 1025), "too_large"),
        (b'{"id": "a", "text": "%s"}' % (b"x" * 10_000), "longer than 8192"),
    ],
)
def test_wrong_lines(text: bytes, told: str) -> None:
    """What would become a dead letter, or a slip of the pen, is refused by its line number."""
    with pytest.raises(CommandError, match=r"x\.jsonl: line 2: ") as caught:
        parsed(b'{"id": "a", "text": "fine"}\n' + text)
    assert told in str(caught.value)


@pytest.mark.kafka
def test_file(fresh: dict[str, str], tmp_path: Path) -> None:
    """A file's documents arrive, all of one id in order, and the count is told."""
    headrace(fresh, "topics", "create")
    file = tmp_path / "documents.jsonl"
    file.write_bytes(lines(*({"id": f"d{i % 50}", "text": f"text {i}"} for i in range(2000))))
    done = headrace(fresh, "load", str(file))
    assert done.code == 0, done.err
    assert done.out.startswith("2,000 records sent to ")
    held = read_all(fresh)
    assert len(held) == 2000
    texts = [value["text"] for key, value in held if key == b"d7"]
    assert texts == [f"text {i}" for i in range(7, 2000, 50)]


@pytest.mark.kafka
def test_wrong_line_stops(fresh: dict[str, str]) -> None:
    """A wrong line ends it: what was before it has been sent, nothing after it is."""
    headrace(fresh, "topics", "create")
    stdin = lines({"id": "a", "text": "x"}, {"id": "b", "text": 3}, {"id": "c", "text": "x"})
    done = headrace(fresh, "load", "-", stdin=stdin)
    assert done.code == 1
    assert "line 2: text must be a string" in done.err
    assert "the 1 before it were sent" in done.err
    assert done.err.count("\n") == 1
    assert read_all(fresh) == [(b"a", {"text": "x"})]


@pytest.mark.kafka
def test_refused_records(fresh: dict[str, str]) -> None:
    """A record that the broker refuses is an error, never a silent loss."""
    env = {**fresh, "HEADRACE_SOURCE__MAX_RECORD_BYTES": "3000000"}
    headrace(fresh, "topics", "create")
    done = headrace(
        env,
        "load",
        "-",
        stdin=lines({"id": "a", "text": os.urandom(800_000).hex()}),
    )
    assert done.code == 1
    assert "not sent" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.kafka
def test_no_topic(fresh: dict[str, str]) -> None:
    """A missing topic is named with the way out."""
    done = headrace(fresh, "load", "-", "--topic", "no-such-topic", stdin=b"")
    assert done.code == 1
    assert "no-such-topic" in done.err
    assert "headrace topics create" in done.err
