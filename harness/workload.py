"""A stream of records whose outcomes are known: updates, deletes, patches and bad records.

Each record's header `expect` says what must become of it: `embedding`, `tombstone`, or the code
of a dead letter. The rule that decides it is the generator's own, so that an audit does not ask
the code under test. Some records are first written in transactions that are aborted; they carry
`expect: never`.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["TENANTS", "Topics", "Workload", "make_topics", "produce"]

EXPECT: Final = "expect"
NEVER: Final = "never"
PATIENCE_S: Final = 60.0

TENANTS: Final = "docs_{/metadata/tenant}"
"""What names the table of each document, where there are several."""

MOVED: Final = 0.2
NAMELESS: Final = 0.22
"""Of the draws from .2 on, which are documents: up to which the name of its table can be none."""


_BAD: Final[Sequence[tuple[str, bytes | None, bytes]]] = (
    ("missing_key", None, b'{"text": "no key"}'),
    ("bad_key", b"\xff\xfe", b'{"text": "the key is not UTF-8"}'),
    ("bad_utf8", b"bad", b'{"text": "\xff"}'),
    ("bad_json", b"bad", b'{"text": '),
    ("bad_schema", b"bad", b'{"text": 5}'),
    ("no_text", b"bad", b'{"text": "  "}'),
    ("not_finite", b"bad", b'{"text": "x", "metadata": {"n": NaN}}'),
    ("too_large", b"bad", b'{"text": "' + b"x" * 900_000 + b'"}'),
)


@dataclass(frozen=True)
class Topics:
    """The topics of one flow."""

    source: str = "documents"
    embeddings: str = "embeddings"
    dead_letters: str = "documents.dead-letters"

    def environment(self, servers: str, group: str, uri: str) -> dict[str, str]:
        """The settings of a flow on these topics, with a table in `uri` and no metrics."""
        return {
            "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": servers,
            "HEADRACE_KAFKA__APPLICATION_ID": group,
            "HEADRACE_SOURCE__TOPICS": self.source,
            "HEADRACE_EMBEDDINGS__TOPIC": self.embeddings,
            "HEADRACE_DEAD_LETTERS__TOPIC": self.dead_letters,
            "HEADRACE_TABLE__URI": uri,
            "HEADRACE_RECOVERY__SUSPECTS": f"{uri}-suspects",
            "HEADRACE_METRICS__ADDRESS": "",
        }


def make_topics(servers: str, topics: Topics, partitions: int) -> None:
    """Make a flow's topics, the source with so many partitions."""
    compacted = {"cleanup.policy": "compact"}
    wanted = [
        NewTopic(topics.source, partitions),
        NewTopic(topics.embeddings, partitions, config=compacted),
        NewTopic(topics.dead_letters, 1),
    ]
    admin = AdminClient({"bootstrap.servers": servers})  # it must outlive its futures
    for made in admin.create_topics(wanted).values():
        made.result(30)


@dataclass(frozen=True, slots=True)
class Record:
    """One record, and what must become of it."""

    key: bytes | None
    value: bytes | None
    expect: str


class Workload:
    """Makes records; the same seed makes the same ones.

    Args:
        texts: What documents say; a record's version is in its metadata.
        keys: How many documents there are.
        seed: Of the random choices.
        tenants: How many tables the documents are in: each names its own in its metadata, now and
            then another one than before. 0 where there is one table.
    """

    def __init__(self, texts: Sequence[str], keys: int, seed: int, tenants: int = 0) -> None:
        self._texts = texts
        self._tenants = tenants
        self._keys = keys
        self._random = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._alive: set[str] = set()
        self._version = 0

    def records(self, count: int) -> Iterator[Record]:
        """The next records of the stream."""
        for _ in range(count):
            self._version += 1
            yield self._next()

    def _next(self) -> Record:
        draw = self._random.random()
        number = self._random.randrange(self._keys)
        identity = f"doc-{number}"
        if draw < 0.02:
            # Large ones are rare, or they are all that the broker does.
            last = len(_BAD) if draw < 0.0002 else len(_BAD) - 1
            code, key, value = _BAD[self._random.randrange(last)]
            return Record(key, value, code)
        if draw < 0.10:
            self._alive.discard(identity)
            return Record(identity.encode(), None, "tombstone")
        metadata: dict[str, object] = {"version": self._version}
        fields: dict[str, object] = {"metadata": metadata}
        if self._tenants:
            metadata["tenant"] = self._tenant(number)
        if draw < 0.20:
            expect = "embedding" if identity in self._alive else "no_text"
            return Record(identity.encode(), json.dumps(fields).encode(), expect)
        fields["text"] = self._random.choice(self._texts)
        if self._tenants and draw < NAMELESS:
            metadata["tenant"] = "../etc"
            return Record(identity.encode(), json.dumps(fields).encode(), "bad_schema")
        self._alive.add(identity)
        return Record(identity.encode(), json.dumps(fields).encode(), "embedding")

    def _tenant(self, number: int) -> str:
        """Mostly that of the document, and in one record of five any."""
        moves = self._random.random() < MOVED
        return f"t{self._random.randrange(self._tenants) if moves else number % self._tenants}"


def produce(
    servers: str,
    topic: str,
    workload: Workload,
    count: int,
    *,
    abort_share: float = 0.0,
    on_chunk: Callable[[int], None] = lambda _: None,
) -> None:
    """Write so many records of a workload, in order, acknowledged.

    Args:
        servers: The broker.
        topic: Where to.
        workload: What.
        count: How many.
        abort_share: Share of the chunks that are preceded by an aborted transaction.
        on_chunk: Called after each chunk of up to 200 records with what was written so far.
    """
    producer = Producer(
        {"bootstrap.servers": servers, "enable.idempotence": True, "linger.ms": 5, "log_level": 3}
    )
    chooser = random.Random(count)  # noqa: S311
    for done in range(0, count, 200):
        if chooser.random() < abort_share:
            _abort(servers, topic)
        for record in workload.records(min(200, count - done)):
            headers: list[tuple[str, str | bytes | None]] = [(EXPECT, record.expect.encode())]
            producer.produce(topic, record.value, record.key, headers=headers)
        producer.flush(60)
        on_chunk(min(count, done + 200))


def _abort(servers: str, topic: str) -> None:
    producer = Producer(
        {"bootstrap.servers": servers, "transactional.id": f"aborts-{topic}", "log_level": 3}
    )
    _patiently(producer.init_transactions)
    producer.begin_transaction()
    for number in range(20):
        value = b'{"text": "from an aborted transaction"}'
        key = f"never-{number}".encode()
        producer.produce(topic, value, key, headers=[(EXPECT, NEVER.encode())])
    producer.flush(PATIENCE_S)
    _patiently(producer.abort_transaction)


def _patiently(step: Callable[[float], None]) -> None:
    """Make a call of a transaction, again if it timed out: the broker may be the one disturbed."""
    try:
        step(PATIENCE_S)
    except KafkaException as error:
        if not error.args[0].retriable():
            raise
        step(PATIENCE_S)
