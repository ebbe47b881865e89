"""`headrace dead-letters`: shows dead letters, and sends them back to where they came from."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from cli.broker import Record, Sender, connect, records
from cli.errors import CommandError
from cli.output import emit, say, show_table, shown_bytes
from headrace.errors import HeadraceError, UsageError
from operators.documents import ERROR_CODES
from operators.records import Lane
from sources.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from clients.kafka import KafkaConfig
    from flows.settings import Settings

__all__ = ["Choice", "Listing", "Replay", "choice", "listing", "replay", "show_list", "show_replay"]

ADDED_HEADERS: Final = frozenset({"headrace-error", "headrace-message", "headrace-source"})
REPLAYED_HEADER: Final = "headrace-replayed"
SHOWN_BYTES: Final = 1000
REASONS_KEPT: Final = 1000


@dataclass(frozen=True)
class Choice:
    """Which dead letters are meant; each attribute that is set narrows the choice.

    Attributes:
        code: Their code.
        places: Their partitions and offsets in the dead-letter topic.
    """

    code: str | None = None
    places: frozenset[tuple[int, int]] = frozenset()

    def has(self, letter: Letter) -> bool:
        """Whether a dead letter is meant."""
        place = (letter.record.lane.partition, letter.record.offset)
        return self.code in {None, letter.code} and (not self.places or place in self.places)


@dataclass(frozen=True)
class Letter:
    """A dead letter.

    Attributes:
        record: It, in the dead-letter topic.
        code: Why it was not embedded, as a stable code.
        message: The same for people.
        source: Where it was read, as TOPIC/PARTITION/OFFSET.
    """

    record: Record
    code: str
    message: str
    source: str

    @property
    def place(self) -> str:
        """Its partition and offset, as `--offset` takes them."""
        return f"{self.record.lane.partition}:{self.record.offset}"


@dataclass(frozen=True)
class Listing:
    """Dead letters, the newest of them.

    Attributes:
        items: As they are shown, in the topic's order.
        matching: How many there are, shown or not.
    """

    items: list[dict[str, Any]]
    matching: int


@dataclass
class Replay:
    """What became of the chosen ones.

    Attributes:
        dry_run: Whether nothing was really sent.
        replayed: How many were sent, or would be.
        skipped: Why others could not be, by their places; the first thousand.
        failed: How many others.
    """

    dry_run: bool
    replayed: int = 0
    failed: int = 0
    skipped: dict[str, str] = field(default_factory=dict)

    def skip(self, place: str, why: str) -> None:
        """Note one that could not be sent."""
        self.failed += 1
        if len(self.skipped) < REASONS_KEPT:
            self.skipped[place] = why


def choice(code: str | None, places: Sequence[str] = ()) -> Choice:
    """The choice that options make.

    Raises:
        UsageError: There is no such code, or a place is none.
    """
    if code is not None and code not in ERROR_CODES:
        raise UsageError(f"--code: {code}: the codes are {', '.join(sorted(ERROR_CODES))}")
    return Choice(code, frozenset(_place(text) for text in places))


def listing(settings: Settings, chosen: Choice, most: int) -> Listing:
    """The newest of the chosen dead letters.

    Raises:
        HeadraceError: The broker or the topic is not there.
    """
    kafka = connect(settings)
    held: deque[dict[str, Any]] = deque(maxlen=most)
    matching = 0
    for letter in _letters(kafka, settings.dead_letters.topic, chosen):
        matching += 1
        held.append(_shown(letter))
    return Listing(list(held), matching)


def show_list(found: Listing, *, as_json: bool) -> None:
    """Print dead letters."""
    if as_json:
        emit(found.items)
        return
    columns = ("offset", "code", "source", "key", "message")
    show_table(columns, [[item[name] for name in columns] for item in found.items], "message")
    say(f"{len(found.items):,} of {found.matching:,} dead letters")


def replay(settings: Settings, chosen: Choice, *, dry_run: bool) -> Replay:
    """Send the chosen dead letters back to their source topics, each acknowledged.

    Raises:
        HeadraceError: The broker or the topic is not there, or a record is refused.
    """
    kafka = connect(settings)
    sender = Sender(kafka, settings.source.max_record_bytes)
    returns = _Returns(kafka, settings.source.max_record_bytes)
    done = Replay(dry_run)
    missing = set(chosen.places)
    for letter in _letters(kafka, settings.dead_letters.topic, chosen):
        missing.discard((letter.record.lane.partition, letter.record.offset))
        try:
            record = returns.record(letter)
        except HeadraceError as error:
            done.skip(letter.place, str(error))
            continue
        done.replayed += 1
        if not dry_run:
            lane = record.lane
            sender.send(lane.topic, record.key, record.value, record.headers, lane.partition)
    sender.finish()
    for partition, offset in sorted(missing):
        done.skip(f"{partition}:{offset}", "there is no such dead letter")
    return done


def show_replay(done: Replay, *, as_json: bool) -> None:
    """Print what became of the chosen ones."""
    if as_json:
        emit(asdict(done))
        return
    for place, why in done.skipped.items():
        say(f"skipped {place}: {why}")
    verb = "would be sent back" if done.dry_run else "sent back"
    say(f"{done.replayed:,} {verb}, {done.failed:,} skipped")


def _letters(kafka: KafkaConfig, topic: str, chosen: Choice) -> Iterator[Letter]:
    """The chosen ones, up to the topic's end as it is now: what dies again later is not read."""
    partitions = kafka.partitions({topic}).get(topic)
    if partitions is None:
        raise SourceError(
            f"dead_letters.topic: {topic}: there is no such topic on {kafka.bootstrap_servers}; "
            "make it: headrace topics create"
        )
    for partition in partitions:
        for record in records(kafka, Lane(topic, partition)):
            letter = _letter(record)
            if chosen.has(letter):
                yield letter


def _letter(record: Record) -> Letter:
    # Of headers with one name the last counts: the original's own stand before ours.
    held = {name: shown_bytes(value) or "" for name, value in record.headers}
    names = ("headrace-error", "headrace-message", "headrace-source")
    return Letter(record, *(held.get(name, "") for name in names))


def _shown(letter: Letter) -> dict[str, Any]:
    record = letter.record
    value = record.value
    return {
        "offset": letter.place,
        "code": letter.code,
        "message": letter.message,
        "source": letter.source,
        "key": shown_bytes(record.key),
        "value": None if value is None else shown_bytes(value[:SHOWN_BYTES]),
        "value_bytes": None if value is None else len(value),
        "time": datetime.fromtimestamp(record.timestamp / 1000, UTC).isoformat(),
    }


class _Returns:
    """Makes the records that go back.

    Args:
        kafka: The broker.
        max_record_bytes: What the flow takes of a record.
    """

    def __init__(self, kafka: KafkaConfig, max_record_bytes: int) -> None:
        self._kafka = kafka
        self._most = max_record_bytes
        self._partitions: dict[str, Collection[int]] = {}

    def record(self, letter: Letter) -> Record:
        """The original, for the partition that it was read from: its key's others are there.

        Raises:
            HeadraceError: It can't be sent back.
        """
        lane, offset = _source(letter.source)
        if lane.partition not in self._known(lane.topic):
            raise CommandError(f"{lane}: is no longer there")
        too_large = letter.code == "too_large"
        original = self._read_again(lane, offset) if too_large else letter.record
        return replace(original, lane=lane, headers=_returned(original))

    def _known(self, topic: str) -> Collection[int]:
        if topic not in self._partitions:
            self._partitions[topic] = self._kafka.partitions({topic}).get(topic, ())
        return self._partitions[topic]

    def _read_again(self, lane: Lane, offset: int) -> Record:
        """A record that was too large to become a dead letter as a whole."""
        found = next(records(self._kafka, lane, offset, offset + 1), None)
        if found is None:
            raise CommandError(f"{lane}/{offset}: is no longer there")
        headers = sum(len(name) + len(value or b"") for name, value in found.headers)
        size = len(found.value or b"") + len(found.key or b"") + headers
        if size > self._most:
            raise CommandError(
                f"{lane}/{offset}: still has more bytes ({size}) than source.max_record_bytes "
                f"({self._most}); raise that first"
            )
        return found


def _returned(record: Record) -> tuple[tuple[str, bytes | None], ...]:
    """The original's headers, and how often it was sent back."""
    count = 1
    kept = []
    for name, value in record.headers:
        if name == REPLAYED_HEADER:
            count = int(value) + 1 if value and value.isdigit() else 1
        elif name not in ADDED_HEADERS:
            kept.append((name, value))
    return (*kept, (REPLAYED_HEADER, str(count).encode()))


def _source(text: str) -> tuple[Lane, int]:
    topic, partition, offset = ["", "", *text.rsplit("/", 2)][-3:]
    if not topic or not partition.isdecimal() or not offset.isdecimal():
        raise CommandError(f"headrace-source: {text!r} is no TOPIC/PARTITION/OFFSET")
    return Lane(topic, int(partition)), int(offset)


def _place(text: str) -> tuple[int, int]:
    partition, _, offset = text.partition(":")
    if not partition.isdecimal() or not offset.isdecimal():
        raise UsageError(f"--offset: {text!r}: must be PARTITION:OFFSET, such as 0:12")
    return int(partition), int(offset)
