"""`headrace load`: documents from a file of JSON lines to the source topic."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from cli.broker import Sender, connect
from cli.errors import CommandError
from cli.output import emit, say
from flows.decoding import own_form
from headrace.errors import UsageError
from operators.lines import BYTE_ORDER_MARK, ESCAPED, WrongLineError, parse_line
from sources.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from clients.kafka import KafkaConfig
    from flows.settings import Settings
    from operators.documents import Decoder
    from operators.lines import LineRecord

__all__ = ["Loaded", "load", "show"]

STDIN: Final = "-"


@dataclass(frozen=True)
class Loaded:
    """What was sent, and how fast."""

    topic: str
    sent: int
    seconds: float
    records_per_second: float


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
    decoder = own_form(settings, "headrace load")
    try:
        for size, record in _lines(stream, name, decoder):
            sender.send(topic, record.key, record.value)
            advance(size)
    except CommandError as error:
        sender.finish()
        raise CommandError(f"{error}; the {sender.acknowledged:,} before it were sent") from error
    sender.finish()
    return sender.acknowledged


def _lines(stream: IO[bytes], name: str, decoder: Decoder) -> Iterator[tuple[int, LineRecord]]:
    """The records that lines stand for, each with its line's bytes.

    Raises:
        CommandError: A line stands for none; the text has its number.
    """
    most = ESCAPED * decoder.max_record_bytes
    number = 0
    while text := stream.readline(most + 1):
        number += 1
        size = len(text)
        if number == 1:
            text = text.removeprefix(BYTE_ORDER_MARK)
        if not text.strip():
            continue
        try:
            yield size, _record(text, most, decoder)
        except WrongLineError as error:
            raise CommandError(f"{name}: line {number}: {error} ({error.code})") from error


def _record(text: bytes, most: int, decoder: Decoder) -> LineRecord:
    if len(text) > most:
        raise WrongLineError(f"longer than {most} bytes", "too_large")
    return parse_line(text, decoder)


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
