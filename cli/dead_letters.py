"""`headrace dead-letters`: shows dead letters, and sends them back to where they came from."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from cli.broker import Record, Sender, connect, first_at, records
from cli.errors import CommandError
from cli.output import emit, say, show_table, shown_bytes
from cli.times import moment
from headrace.errors import HeadraceError, UsageError
from operators.documents import ERROR_CODES
from operators.records import Lane
from sources.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from clients.kafka import KafkaConfig
    from flows.settings import Settings

__all__ = [
    "Choice",
    "Listing",
    "Narrowing",
    "Replay",
    "choice",
    "listing",
    "replay",
    "show_list",
    "show_one",
    "show_replay",
    "whole",
]

ADDED_HEADERS: Final = frozenset({"headrace-error", "headrace-message", "headrace-source"})
ORIGIN_HEADER: Final = "headrace-origin"
ORIGIN_ERROR_HEADER: Final = "headrace-origin-error"
REPLAYED_HEADER: Final = "headrace-replayed"
SHOWN_BYTES: Final = 1000
REASONS_KEPT: Final = 1000

SKEW_MS: Final = 600_000
"""By how much the clocks of those that write the dead-letter topic may differ: records stand in it
nearly in the order of their times, so so far behind the end of a span is looked for others."""


@dataclass(frozen=True)
class Choice:
    """Which dead letters are meant; each attribute that is set narrows the choice.

    Attributes:
        code: Their code.
        places: Their partitions and offsets in the dead-letter topic.
        topic: The topic that they were read from.
        partition: Its partition.
        since: When they were written at the earliest, in milliseconds since 1970.
        until: Before when they were written.
    """

    code: str | None = None
    places: frozenset[tuple[int, int]] = frozenset()
    topic: str | None = None
    partition: int | None = None
    since: int | None = None
    until: int | None = None

    def has(self, letter: Letter) -> bool:
        """Whether a dead letter is meant."""
        place = (letter.record.lane.partition, letter.record.offset)
        return (
            self.code in {None, letter.code}
            and (not self.places or place in self.places)
            and self._has_source(letter.source)
            and (self.since is None or letter.record.timestamp >= self.since)
            and (self.until is None or letter.record.timestamp < self.until)
        )

    def _has_source(self, source: str) -> bool:
        if self.topic is None and self.partition is None:
            return True
        topic, partition, _ = _parts(source)
        number = None if self.partition is None else str(self.partition)
        return self.topic in {None, topic} and number in {None, partition}


@dataclass(frozen=True)
class Narrowing:
    """What a user has said of the dead letters that are meant; None where nothing.

    Attributes:
        code: Their code.
        source: The topic that they were read from, or its name, a slash and a partition.
        partition: The partition that they were read from, whatever the topic.
        since: When they were written at the earliest: ISO 8601, or how long ago.
        until: Before when they were written.
    """

    code: str | None = None
    source: str | None = None
    partition: int | None = None
    since: str | None = None
    until: str | None = None

    def __bool__(self) -> bool:
        return any(given is not None for given in asdict(self).values())


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


def choice(given: Narrowing, places: Sequence[str] = ()) -> Choice:
    """The choice that options make.

    Raises:
        UsageError: There is no such code, or a place or a time is none.
    """
    code = given.code
    if code is not None and code not in ERROR_CODES:
        raise UsageError(f"--code: {code}: the codes are {', '.join(sorted(ERROR_CODES))}")
    topic, partition = _lane(given.source, given.partition)
    now = datetime.now(UTC)
    return Choice(
        code,
        frozenset(_place("--offset", text) for text in places),
        topic,
        partition,
        None if given.since is None else moment("--since", given.since, now),
        None if given.until is None else moment("--until", given.until, now),
    )


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


def whole(settings: Settings, place: str, most: int) -> dict[str, Any]:
    """One dead letter, with all that is known of it.

    Args:
        settings: The settings.
        place: Where it is, as PARTITION:OFFSET of the dead-letter topic.
        most: The most bytes that are given of its value, and of each header.

    Raises:
        HeadraceError: The broker or the topic is not there, or there is no such dead letter.
    """
    partition, offset = _place("PLACE", place)
    kafka, topic = connect(settings), settings.dead_letters.topic
    lane = Lane(topic, partition)
    found = None
    if partition in _partitions(kafka, topic):
        found = next(records(kafka, lane, offset, offset + 1), None)
    if found is None:
        raise CommandError(f"{lane}/{offset}: there is no such dead letter")
    letter = _letter(found)
    kept = [
        {"name": name, "value": _readable(value, most)}
        for name, value in found.headers
        if name not in ADDED_HEADERS
    ]
    return {
        **{name: held for name, held in _shown(letter).items() if name not in _BRIEF},
        "key": _readable(found.key, most),
        "headers": kept,
        "value": _readable(found.value, most),
    }


def show_one(letter: dict[str, Any], *, as_json: bool) -> None:
    """Print one dead letter: a line for each thing that is known of it, then its value."""
    if as_json:
        emit(letter)
        return
    lines = {name: letter[name] for name in ("offset", "code", "message", "source", "time")}
    lines |= {"origin": letter["origin"], "origin code": letter["origin_code"]}
    lines |= {"replayed": letter["replayed"] or None, "key": _told(letter["key"])}
    lines |= {f"header {held['name']}": _told(held["value"]) for held in letter["headers"]}
    for name, held in lines.items():
        if held is not None:
            say(f"{name}: {held}")
    value = letter["value"]
    if value is None:
        say("value: none")
        return
    cut = ", the first of them:" if value["cut"] else ":"
    say(f"value, {value['bytes']:,} bytes{' in hex' * ('hex' in value)}{cut}")
    for line in (value["hex"] if "hex" in value else value["text"]).splitlines():
        say(line)


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
    for partition in _partitions(kafka, topic):
        lane = Lane(topic, partition)
        start, end = _span(kafka, lane, chosen)
        for record in records(kafka, lane, start, end):
            letter = _letter(record)
            if chosen.has(letter):
                yield letter


def _partitions(kafka: KafkaConfig, topic: str) -> Collection[int]:
    partitions = kafka.partitions({topic}).get(topic)
    if partitions is None:
        raise SourceError(
            f"dead_letters.topic: {topic}: there is no such topic on {kafka.bootstrap_servers}; "
            "make it: headrace topics create"
        )
    return partitions


def _span(kafka: KafkaConfig, lane: Lane, chosen: Choice) -> tuple[int | None, int | None]:
    """The first offset and the one after the last that a choice of times leaves to be read."""
    start = None if chosen.since is None else first_at(kafka, lane, chosen.since)
    late = None if chosen.until is None else chosen.until + SKEW_MS
    return start, None if late is None else first_at(kafka, lane, late)


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
        **_origin(record),
    }


_BRIEF: Final = frozenset({"key", "value", "value_bytes"})
"""What of a list's item is told at length where one is shown alone."""


def _origin(record: Record) -> dict[str, Any]:
    """Where a record that was sent back came from at first, and how often it was."""
    held = dict(record.headers)
    return {
        "origin": shown_bytes(held.get(ORIGIN_HEADER)),
        "origin_code": shown_bytes(held.get(ORIGIN_ERROR_HEADER)),
        "replayed": _count(held.get(REPLAYED_HEADER)),
    }


def _readable(value: bytes | None, most: int) -> dict[str, Any] | None:
    """Bytes as text where they are UTF-8, else in hex; how many there are, and if some are cut."""
    if value is None:
        return None
    about = {"bytes": len(value), "cut": len(value) > most}
    try:
        value.decode()
    except UnicodeDecodeError:
        return {"hex": value[:most].hex(" "), **about}
    # Without the character that the cut goes through.
    return {"text": value[:most].decode(errors="ignore"), **about}


def _told(held: dict[str, Any] | None) -> str:
    if held is None:
        return "none"
    return f"{held.get('hex', held.get('text'))}{' …' * held['cut']}"


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
        return replace(original, lane=lane, headers=_returned(original, letter))

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


def _returned(record: Record, letter: Letter) -> tuple[tuple[str, bytes | None], ...]:
    """The original's headers, where it came from at first and why, and how often it was sent back.

    Args:
        record: The original, with the headers that earlier replays gave it.
        letter: The dead letter that it became.
    """
    ours = {*ADDED_HEADERS, ORIGIN_HEADER, ORIGIN_ERROR_HEADER, REPLAYED_HEADER}
    held = dict(record.headers)
    count = _count(held.get(REPLAYED_HEADER))
    origin, code = held.get(ORIGIN_HEADER), held.get(ORIGIN_ERROR_HEADER)
    if not count or origin is None:
        origin, code = letter.source.encode(), letter.code.encode()
    return (
        *((name, value) for name, value in record.headers if name not in ours),
        (ORIGIN_HEADER, origin),
        (ORIGIN_ERROR_HEADER, code),
        (REPLAYED_HEADER, str(count + 1).encode()),
    )


def _count(value: bytes | None) -> int:
    """How often a record was sent back, by its header."""
    return int(value) if value and value.isdigit() else 0


def _parts(source: str) -> tuple[str, str, str]:
    """A source's topic, partition and offset, as text; empty where it has none."""
    topic, partition, offset = ["", "", *source.rsplit("/", 2)][-3:]
    return topic, partition, offset


def _source(text: str) -> tuple[Lane, int]:
    topic, partition, offset = _parts(text)
    if not topic or not partition.isdecimal() or not offset.isdecimal():
        raise CommandError(f"headrace-source: {text!r} is no TOPIC/PARTITION/OFFSET")
    return Lane(topic, int(partition)), int(offset)


def _lane(source: str | None, partition: int | None) -> tuple[str | None, int | None]:
    """The topic and partition that `--source` and `--partition` name."""
    topic, slash, number = (source or "").partition("/")
    if source is not None and (not topic or (slash and not number.isdecimal())):
        raise UsageError(f"--source: {source!r}: must be TOPIC or TOPIC/PARTITION")
    if not slash:
        return topic or None, partition
    if partition not in {None, int(number)}:
        raise UsageError(f"--source: {source}: --partition {partition} says another one")
    return topic, int(number)


def _place(option: str, text: str) -> tuple[int, int]:
    partition, _, offset = text.partition(":")
    if not partition.isdecimal() or not offset.isdecimal():
        raise UsageError(f"{option}: {text!r}: must be PARTITION:OFFSET, such as 0:12")
    return int(partition), int(offset)
