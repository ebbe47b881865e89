"""Counts what a flow wrote against what it was given: on the topics and in the table.

Everything is read anew from Kafka and LanceDB and judged by rules of its own: outcomes by a
`read_committed` consumer, the table by LanceDB's own reader.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Self

import lancedb
import numpy as np
from confluent_kafka import Consumer, KafkaError, TopicPartition

from clients.kafka import KafkaConfig
from harness.workload import EXPECT, TENANTS, Topics
from headrace.v1.embedding_pb2 import Embedding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from confluent_kafka import Message

__all__ = [
    "Finding",
    "Given",
    "Reader",
    "Report",
    "audit",
    "committed_offsets",
    "findings",
    "given_records",
]

Place = tuple[str, int, int]
"""A source record's topic, partition and offset."""

SAME_VECTOR: Final = 0.9999
"""The least cosine of two encodings of one text. What one output lacks after a crash is encoded
again, in another batch, whose padding can change a vector's last bits: .999998 was seen in bf16."""

DEAD_CODES: Final = frozenset(
    {
        *("missing_key", "bad_key", "bad_utf8", "bad_json", "bad_schema", "no_text"),
        *("too_large", "not_finite", "poison"),
    }
)


@dataclass(frozen=True, slots=True)
class Given:
    """A source record, and the outcome that it must have."""

    place: Place
    key: bytes | None
    value: bytes | None
    expect: str


@dataclass(frozen=True, slots=True)
class Finding:
    """An outcome that was seen: what it was, of which record, and where."""

    place: Place
    outcome: str
    key: bytes | None
    value: bytes | None
    partition: int


@dataclass
class Report:
    """What an audit counted; every list but `outcomes` must be empty.

    `fates` says of the missing ones whether they were written at all.
    """

    records: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    missing: list[Place] = field(default_factory=list)
    duplicates: list[Place] = field(default_factory=list)
    unexpected: list[Place] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    table_rows: int = 0
    table_faults: list[str] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)
    fates: list[str] = field(default_factory=list)

    @property
    def faults(self) -> dict[str, int]:
        """How many of each kind of fault there are."""
        return {
            "missing": len(self.missing),
            "duplicates": len(self.duplicates),
            "unexpected": len(self.unexpected),
            "wrong outcome": len(self.wrong),
            "out of order": len(self.out_of_order),
            "table": len(self.table_faults),
            "behind": len(self.behind),
        }

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not any(self.faults.values())

    def __str__(self) -> str:
        """One line, with the first fault of each kind where there is one."""
        counted = ", ".join(f"{name} {count}" for name, count in self.faults.items())
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(self.outcomes.items()))
        lists = (self.missing, self.duplicates, self.unexpected, self.wrong, self.out_of_order)
        told = (*lists, self.table_faults, self.behind)
        first = [*(str(found[0]) for found in told if found), *self.fates]
        line = f"{self.records} records ({kinds}), {self.table_rows} rows: {counted}"
        return line + (f"; for example {'; '.join(first)}" if first else "")


def audit(
    servers: str,
    topics: Topics,
    group: str,
    table: tuple[str, str],
    expected: Callable[[Sequence[Given]], Sequence[Given]] = lambda given: given,
) -> Report:
    """Compare the outcomes of every source record, and the table, with what they must be.

    Args:
        servers: The broker.
        topics: The flow's topics.
        group: The flow's `kafka.application_id`.
        table: The table's URI and name; `harness.workload.TENANTS` for several.
        expected: Gives records without the header `expect` their outcome.
    """
    given = expected(given_records(servers, topics.source))
    seen = findings(servers, topics)
    report = Report(records=len(given))
    _compare_topics(report, given, seen)
    _compare_table(report, given, seen, table)
    for (topic, partition), (committed, end) in committed_offsets(servers, topics, group).items():
        if committed != end:
            report.behind.append(f"{topic}/{partition}: committed {committed} of {end}")
    report.fates = _fates(servers, topics, report.missing)
    return report


def given_records(servers: str, topic: str) -> list[Given]:
    """Every committed record of a source topic, in offset order within a partition."""
    return [
        Given(
            (topic, message.partition() or 0, message.offset() or 0),
            message.key(),
            message.value(),
            _header(message, EXPECT) or "",
        )
        for message in read_topic(servers, topic)
    ]


def committed_offsets(
    servers: str, topics: Topics, group: str
) -> dict[tuple[str, int], tuple[int, int]]:
    """For each source partition, the group's committed offset and the end of the log."""
    kafka = KafkaConfig(servers, group)
    consumer = kafka.observer()
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for place in _partitions(servers, topics.source):
        committed = kafka.committed(consumer, place.topic, place.partition)
        end = _end(kafka, consumer, place)
        found[place.topic, place.partition] = (committed or 0, end)
    consumer.close()
    return found


def read_topic(servers: str, topic: str, isolation: str = "read_committed") -> Iterator[Message]:
    """Every record from the beginning to the end that a topic now has for that isolation level."""
    consumer = _consumer(servers, "audit", isolation)
    left = {place.partition for place in _partitions(servers, topic)}
    consumer.assign([TopicPartition(topic, partition, 0) for partition in left])
    while left:
        for message in consumer.consume(1000, timeout=0.2):
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                left.discard(message.partition())
    consumer.close()


def _end(kafka: KafkaConfig, consumer: Consumer, place: TopicPartition) -> int:
    _, end = kafka.patiently(
        "reading the log's end", lambda: consumer.get_watermark_offsets(place, timeout=10)
    )
    return end


class Reader:
    """A `read_committed` consumer that watches the outputs while the flow is being disturbed.

    As a context manager it starts on entry and stops on exit.

    Args:
        servers: The broker.
        topics: The flow's topics.
    """

    def __init__(self, servers: str, topics: Topics) -> None:
        self.findings: list[Finding] = []
        self._topics = topics
        self._servers = servers
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    @property
    def faults(self) -> list[str]:
        """What it has seen that must never be seen: a second outcome, or one out of order."""
        return [str(place) for place in _doubles(self.findings)] + _disorder(self.findings)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        consumer = _consumer(self._servers, "reader")
        places = [
            place
            for topic in (self._topics.embeddings, self._topics.dead_letters)
            for place in _partitions(self._servers, topic)
        ]
        consumer.assign([TopicPartition(p.topic, p.partition, 0) for p in places])
        while not self._stop.is_set():
            for message in consumer.consume(1000, timeout=0.2):
                if message.error() is None:
                    self.findings.append(_finding(message))
        consumer.close()


def findings(servers: str, topics: Topics) -> list[Finding]:
    """Every outcome on the output topics, in offset order within a partition."""
    return [
        _finding(message)
        for topic in (topics.embeddings, topics.dead_letters)
        for message in read_topic(servers, topic)
    ]


def _finding(message: Message) -> Finding:
    source = _header(message, "headrace-source") or "?/-1/-1"
    topic, partition, offset = source.rsplit("/", 2)
    outcome = _header(message, "headrace-error")
    if outcome is None:
        outcome = "tombstone" if message.value() is None else "embedding"
    place = (topic, int(partition), int(offset))
    return Finding(place, outcome, message.key(), message.value(), message.partition() or 0)


def _compare_topics(report: Report, given: Sequence[Given], findings: Sequence[Finding]) -> None:
    seen = {finding.place: finding for finding in findings}
    wanted = {record.place: record for record in given}
    report.outcomes.update(finding.outcome for finding in findings)
    report.missing = [place for place in wanted if place not in seen]
    report.unexpected = [place for place in seen if place not in wanted]
    report.duplicates = _doubles(findings)
    report.out_of_order = _disorder(findings)
    for place, record in wanted.items():
        found = seen.get(place)
        if found is not None and found.outcome != record.expect:
            report.wrong.append(f"{place}: {found.outcome} instead of {record.expect}")
        if found is not None and found.key != record.key:
            report.wrong.append(f"{place}: key {found.key!r} instead of {record.key!r}")


def _fates(servers: str, topics: Topics, missing: Sequence[Place]) -> list[str]:
    """For the first missing ones, where they were written though nobody sees them, or never."""
    if not missing:
        return []
    written: defaultdict[Place, list[str]] = defaultdict(list)
    for topic in (topics.embeddings, topics.dead_letters):
        for message in read_topic(servers, topic, "read_uncommitted"):
            at = f"{topic}/{message.partition()}@{message.offset()}"
            written[_finding(message).place].append(at)
    return [
        f"{place} was never committed at {', '.join(written[place])}"
        if place in written
        else f"{place} was never written"
        for place in missing[:5]
    ]


def _doubles(findings: Sequence[Finding]) -> list[Place]:
    counted = Counter(finding.place for finding in findings)
    return [place for place, times in counted.items() if times > 1]


def _disorder(findings: Sequence[Finding]) -> list[str]:
    """Outcomes of a key that came after a later one of the same source partition."""
    last: dict[tuple[bytes | None, str, int, bool], int] = {}
    faults = []
    for finding in findings:
        topic, partition, offset = finding.place
        # Dead letters are a topic of their own, with an order of its own.
        at = (finding.key, topic, partition, finding.outcome in DEAD_CODES)
        if offset < last.get(at, -1):
            faults.append(f"{finding.place} of {finding.key!r} after offset {last[at]}")
        last[at] = max(offset, last.get(at, -1))
    return faults


def _compare_table(
    report: Report,
    given: Sequence[Given],
    findings: Sequence[Finding],
    table: tuple[str, str],
) -> None:
    wanted = _final_state(given)
    messages = _last_messages(findings)
    rows = _rows(table)
    alive = [row for row in rows if not row["deleted"]]
    report.table_rows = len(alive)
    firsts = [(row["id"], row.get("table")) for row in rows if not row["chunk"]]
    living = [(row["id"], "all tables") for row in alive if not row["chunk"]]
    for (identity, where), times in [*Counter(firsts).items(), *Counter(living).items()]:
        if times > 1:
            report.table_faults.append(f"{identity}: {times} rows in {where or 'the table'}")
    found = {row["id"]: row for row in alive if not row["chunk"]}
    pieces: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in alive:
        pieces[row["id"]].append(row)
    for identity in wanted.keys() ^ pieces.keys():
        kind = "missing" if identity in wanted else "should be deleted"
        report.table_faults.append(f"{identity}: {kind}")
    for identity in wanted.keys() & found.keys():
        message = messages.get(identity)
        told = [*_row_faults(wanted[identity], found[identity], message)]
        told += _piece_faults(pieces[identity], message)
        report.table_faults.extend(f"{identity}: {fault}" for fault in told)


@dataclass(frozen=True, slots=True)
class _State:
    text: str
    metadata: Mapping[str, Any]
    place: Place


def _final_state(given: Sequence[Given]) -> dict[str, _State]:
    """What replaying the source in order leaves of each document."""
    states: dict[str, _State] = {}
    for record in given:
        if record.expect == "tombstone":
            states.pop((record.key or b"").decode(), None)
        elif record.expect == "embedding":
            identity = (record.key or b"").decode()
            fields = json.loads(record.value or b"{}")
            before = states.get(identity)
            text = fields.get("text", before.text if before else "")
            states[identity] = _State(text, fields.get("metadata") or {}, record.place)
    return states


def _last_messages(findings: Sequence[Finding]) -> dict[str, Embedding]:
    """The last embedding of each document."""
    last: dict[str, Finding] = {}
    for finding in findings:
        if finding.outcome == "embedding":
            identity = (finding.key or b"").decode()
            held = last.get(identity)
            if held is None or finding.place > held.place:
                last[identity] = finding
    return {name: Embedding.FromString(finding.value or b"") for name, finding in last.items()}


def _vector(message: Embedding, data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<f4" if message.dtype == "float32" else "<f2")


def _piece_faults(rows: Sequence[Mapping[str, Any]], message: Embedding | None) -> Iterator[str]:
    """What is wrong with the rows of a document: a row for each chunk, all of one write."""
    if message is None:
        return
    wanted = [message.vector, *(chunk.vector for chunk in message.chunks)]
    rows = sorted(rows, key=lambda row: int(row["chunk"]))
    if [row["chunk"] for row in rows] != list(range(len(wanted))):
        yield f"chunks {[row['chunk'] for row in rows]} instead of {len(wanted)}"
        return
    if len({(row.get("table"), row["source_offset"]) for row in rows}) > 1:
        yield "chunks of several writes, or in several tables"
    for row, data in zip(rows, wanted, strict=True):
        if _cosine(row["vector"], _vector(message, data)) < SAME_VECTOR:
            yield f"chunk {row['chunk']}: vector unlike the topic's"


def _row_faults(wanted: _State, row: Mapping[str, Any], message: Embedding | None) -> Iterator[str]:
    if row["text"] != wanted.text:
        yield f"text {row['text']!r:.60} instead of {wanted.text!r:.60}"
    typed = {name: row[name] for name in wanted.metadata if name in row}
    if json.loads(row["metadata"]) | typed != wanted.metadata:
        yield f"metadata {row['metadata']} instead of {wanted.metadata}"
    _, partition, offset = wanted.place
    if (row["source_partition"], row["source_offset"]) != (partition, offset):
        yield f"offset {row['source_offset']} instead of {wanted.place}"
    if "table" in row and row["table"] != TENANTS.partition("{")[0] + wanted.metadata["tenant"]:
        yield f"is in {row['table']}, and should be in that of {wanted.metadata['tenant']}"
    if message is None:
        yield "has no embedding on the topic"


def _cosine(one: Sequence[float], other: np.ndarray) -> float:
    left, right = np.asarray(one, np.float64), np.asarray(other, np.float64)
    return float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))


def _rows(table: tuple[str, str]) -> list[dict[str, Any]]:
    """The rows of a table; or of all that a template has made, each with the name of its own."""
    uri, name = table
    database = lancedb.connect(uri, read_consistency_interval=timedelta(0))
    if name != TENANTS:
        return _rows_of(database, name)
    prefix = TENANTS.partition("{")[0]
    names = [one for one in database.list_tables().tables if one.startswith(prefix)]
    return [{**row, "table": one} for one in names for row in _rows_of(database, one)]


def _rows_of(database: lancedb.DBConnection, name: str) -> list[dict[str, Any]]:
    found = database.open_table(name).to_lance().to_table(filter="id IS NOT NULL")
    return list(found.to_pylist())


def _consumer(servers: str, group: str, isolation: str = "read_committed") -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "reconnect.backoff.max.ms": 1000,
            "log_level": 0,
        }
    )


def _partitions(servers: str, topic: str) -> list[TopicPartition]:
    found = KafkaConfig(servers, "audit").partitions([topic])
    return [TopicPartition(topic, number) for number in found[topic]]


def _header(message: Message, name: str) -> str | None:
    value = dict(message.headers() or ()).get(name)
    return value.decode() if isinstance(value, bytes) else value
