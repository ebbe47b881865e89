"""`headrace load`: documents from a file of JSON lines to the source topic."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn

import orjson
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from cli.broker import Sender, connect
from cli.errors import CommandError
from cli.output import emit, say
from headrace.errors import UsageError
from operators.documents import Decoder
from operators.records import Kind
from sources.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from clients.kafka import KafkaConfig
    from flows.settings import Settings

__all__ = ["Loaded", "load", "show"]

FIELDS: Final = frozenset({"id", "text", "metadata", "timestamp", "deleted"})
STDIN: Final = "-"
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
ESCAPED: Final = 8
"""How many times longer than its record a line may be: an escape has 6 bytes for one."""


@dataclass(frozen=True)
class Loaded:
    """What was sent, and how fast."""

    topic: str
    sent: int
    seconds: float
    records_per_second: float


@dataclass(frozen=True, slots=True)
class Line:
    """A line as the record that it stands for; `value` is None where the document is deleted."""

    size: int
    key: bytes
    value: bytes | None


def load(settings: Settings, file: Path, topic: str | None) -> Loaded:
    """Send a file's documents to a topic, each acknowledged.

    Args:
        settings: They name the broker and the topic, and say what a record may be.
        file: JSON lines; `-` is standard input.
        topic: Where to; the first of `source.topics` unless given.

    Raises:
        CommandError: A line is wrong; those before it were sent.
        HeadraceError: The file, the topic or the broker is not there, or refuses.
    """
    topic = topic or settings.source.topics[0]
    with _opened(file) as stream:
        kafka = connect(settings)
        if topic not in kafka.partitions({topic}):
            raise SourceError(
                f"{topic}: there is no such topic on {kafka.bootstrap_servers}; make it: "
                "headrace topics create"
            )
        started = time.monotonic()
        with _progress(stream) as advance:
            sent = _send(kafka, settings, stream, str(file), topic, advance)
    seconds = time.monotonic() - started
    return Loaded(topic, sent, round(seconds, 3), round(sent / max(seconds, 1e-9), 1))


def show(loaded: Loaded, *, as_json: bool) -> None:
    """Print what was sent."""
    if as_json:
        emit(asdict(loaded))
        return
    say(
        f"{loaded.sent:,} records sent to {loaded.topic} in {loaded.seconds:.1f} s, "
        f"{loaded.records_per_second:,.0f} a second"
    )


def _send(
    kafka: KafkaConfig,
    settings: Settings,
    stream: IO[bytes],
    name: str,
    topic: str,
    advance: Callable[[int], None],
) -> int:
    limit = settings.source.max_record_bytes
    sender = Sender(kafka, limit)
    decoder = Decoder(settings.table.columns, limit)
    try:
        for line in _lines(stream, name, decoder):
            sender.send(topic, line.key, line.value)
            advance(line.size)
    except CommandError as error:
        sender.finish()
        raise CommandError(f"{error}; the {sender.acknowledged:,} before it were sent") from error
    sender.finish()
    return sender.acknowledged


def _lines(stream: IO[bytes], name: str, decoder: Decoder) -> Iterator[Line]:
    """The records that lines stand for.

    Raises:
        CommandError: A line stands for none; the text has its number.
    """
    most = ESCAPED * decoder.max_record_bytes
    number = 0
    while text := stream.readline(most + 1):
        number += 1
        try:
            if len(text) > most:
                _refuse(f"longer than {most} bytes")
            size = len(text)
            if number == 1:
                text = text.removeprefix(BYTE_ORDER_MARK)
            if text.strip():
                yield Line(size, *_record(text, decoder))
        except _WrongLineError as error:
            raise CommandError(f"{name}: line {number}: {error}") from error


def _record(text: bytes, decoder: Decoder) -> tuple[bytes, bytes | None]:
    """The key and value that a line stands for, held to what the flow takes."""
    fields = _fields(text)
    identity = fields.pop("id", None)
    if not isinstance(identity, str):
        _refuse("id must be a string" if identity is not None else "has no id")
    key, value = identity.encode(), _value(fields)
    document = decoder.decode(key, value, (), 0)
    if document.kind is Kind.DEAD and document.dead is not None:
        _refuse(f"{document.dead.message} ({document.dead.code})")
    return key, value


def _fields(text: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        _refuse(f"not JSON: {error}")
    if not isinstance(fields, dict):
        _refuse("not a JSON object")
    unknown = sorted(fields.keys() - FIELDS)
    if unknown:
        _refuse(f"{unknown[0]}: there is no such field; put it into metadata")
    return fields


def _value(fields: dict[str, Any]) -> bytes | None:
    """The record's value; None where the line deletes."""
    deleted = fields.pop("deleted", False)
    if not isinstance(deleted, bool):
        _refuse("deleted must be true or false")
    if deleted:
        if fields.get("text") is not None:
            _refuse("has a text and is deleted")
        return None
    if "text" in fields and fields["text"] is None:
        # A mere absence deletes nothing: it is more likely a slip than a wish.
        del fields["text"]
        if fields.get("metadata") is None:
            return None
    return orjson.dumps(fields)


class _WrongLineError(Exception):
    pass


def _refuse(message: str) -> NoReturn:
    raise _WrongLineError(message)


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    if str(file) == STDIN:
        yield sys.stdin.buffer
        return
    try:
        stream = file.open("rb")
    except OSError as error:
        raise UsageError(f"FILE: {file}: {error.strerror}") from error
    with stream:
        yield stream


@contextmanager
def _progress(stream: IO[bytes]) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, if somebody sees it; gives what moves it on by some bytes."""
    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(TextColumn("sending"), *columns, console=console, transient=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with bar:
        task = bar.add_task("sending", total=_size(stream))
        yield lambda size: bar.advance(task, size)


def _size(stream: IO[bytes]) -> int | None:
    """Its bytes; None where they only show as they come."""
    if not stream.seekable():
        return None
    here = stream.tell()
    size = stream.seek(0, 2)
    stream.seek(here)
    return size
