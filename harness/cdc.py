"""A PostgreSQL table that changes, Debezium that follows it, and a flow: each of them killed.

From nothing to a searchable table: the database, Kafka Connect and the flow are started on an empty
broker. At the end the audit compares topic and table with every event, and this module compares
the table with the database, and the events with the changes that were made.
"""

from __future__ import annotations

import json
import random
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self
from urllib.request import urlopen

import lancedb

from harness.audit import Given, given_records
from harness.connect import Connect, connector
from harness.faults import PROGRESS_S, Trial, TrialResult
from harness.postgres import Postgres
from harness.process import HOST, HarnessError, free_port

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["ChangeResult", "ChangeTrial", "Changes", "cdc"]

ROWS: Final = 500
CHANGES: Final = 3200
RATE: Final = 20.0
"""Changes a second: slow enough that there is something to do at each kill."""

KILLS: Final = 15
CHUNK: Final = 20
LONG: Final = 2500
"""Characters, which PostgreSQL keeps outside of the row and logs only when they change."""

PREFIX: Final = "shop"
TABLE: Final = "articles"
SOURCE: Final = f"{PREFIX}.public.{TABLE}"
PLACEHOLDER: Final = "__debezium_unavailable_value"
WAIT_S: Final = 120.0

SETTINGS: Final[Mapping[str, str]] = {
    "HEADRACE_SOURCE__FORMAT": "debezium",
    "HEADRACE_SOURCE__TEXT": "/body",
    "HEADRACE_SOURCE__METADATA": json.dumps(
        {"title": "/title", "price": {"at": "/price", "type": "int64"}}
    ),
}

_SCHEMA: Final = (
    f"CREATE TABLE {TABLE} (id bigint PRIMARY KEY, title text, body text, price int)",
    f"ALTER TABLE {TABLE} ALTER body SET STORAGE EXTERNAL",
)


class Made(NamedTuple):
    """A statement, and how many events it must come to."""

    statement: str
    events: int


class Changes:
    """Makes changes to a table; the same seed makes the same ones.

    Args:
        texts: What the rows say.
        seed: Of the random choices.
    """

    def __init__(self, texts: Sequence[str], seed: int) -> None:
        # As a mapping takes them: without space around.
        self._texts = [text.strip() for text in texts if text.strip()]
        self._random = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._rows: list[int] = []
        self._gone: list[int] = []
        self._last = 0

    def rows(self, count: int) -> Iterator[Made]:
        """So many rows that are inserted."""
        for _ in range(count):
            yield self._insert()

    def changes(self, count: int) -> Iterator[Made]:
        """The next changes."""
        kinds = {
            self._insert: 15,
            self._reword: 25,
            self._reprice: 30,
            self._reprice_some: 5,
            self._delete: 12,
            self._bring_back: 5,
            self._rename: 5,
            self._roll_back: 3,
        }
        for make in self._random.choices(list(kinds), list(kinds.values()), k=count):
            yield make()

    def _insert(self) -> Made:
        self._last += 1
        return self._inserted(self._last)

    def _bring_back(self) -> Made:
        return self._inserted(self._gone.pop()) if self._gone else self._insert()

    def _inserted(self, identity: int) -> Made:
        self._rows.append(identity)
        values = f"{identity}, {_quoted(self._title())}, {_quoted(self._body())}, {self._price()}"
        return Made(f"INSERT INTO {TABLE} VALUES ({values})", 1)  # noqa: S608 - of our own

    def _reword(self) -> Made:
        return self._update(f"body = {_quoted(self._body())}")

    def _reprice(self) -> Made:
        return self._update(f"price = {self._price()}")

    def _reprice_some(self) -> Made:
        some = self._random.sample(self._rows, 5)
        return Made(f"{self._set(f'price = {self._price()}')} IN ({_list(some)})", len(some))

    def _delete(self) -> Made:
        identity = self._rows.pop(self._random.randrange(len(self._rows)))
        self._gone.append(identity)
        # An event, and the null value behind it.
        return Made(f"DELETE FROM {TABLE} WHERE id = {identity}", 2)  # noqa: S608

    def _rename(self) -> Made:
        place = self._random.randrange(len(self._rows))
        old, self._last = self._rows[place], self._last + 1
        self._rows[place] = self._last
        # With the body, which the event under the new key lacks where it is long and unchanged.
        changed = f"id = {self._last}, body = {_quoted(self._body())}"
        return Made(f"{self._set(changed)} = {old}", 3)

    def _roll_back(self) -> Made:
        one, other = self._update("price = -1"), self._update("body = 'never'")
        return Made(f"BEGIN; {one.statement}; {other.statement}; ROLLBACK", 0)

    def _update(self, changed: str) -> Made:
        return Made(f"{self._set(changed)} = {self._random.choice(self._rows)}", 1)

    def _set(self, changed: str) -> str:
        return f"UPDATE {TABLE} SET {changed} WHERE id"  # noqa: S608

    def _title(self) -> str:
        return self._random.choice(self._texts)[:40]

    def _price(self) -> int:
        return self._random.randrange(1000)

    def _body(self) -> str:
        body = self._random.choice(self._texts)
        return body * (LONG // len(body) + 1) if self._random.random() < 0.1 else body


@dataclass
class ChangeResult(TrialResult):
    """What a trial on a database counted.

    Attributes:
        made: The events that the changes must have come to.
        seen: The events there are.
        unlike: Rows of the table that are not the database's, and the reverse.
        tokens: What went into the model for rows whose text stayed as it was.
    """

    made: int = 0
    seen: int = 0
    unlike: list[str] = field(default_factory=list)
    tokens: int = 0

    @property
    def clean(self) -> bool:
        """Whether table, database and events agree, and nothing was lost, doubled or in vain."""
        agree = not self.unlike and self.made == self.seen
        return super().clean and agree and not self.tokens

    def __str__(self) -> str:
        told = f"{self.seen} events of {self.made}, {len(self.unlike)} rows unlike the database's"
        told += f", {self.tokens} tokens for texts that stayed"
        return f"{super().__str__()}; {told}{''.join(f'; {one}' for one in self.unlike[:3])}"


@dataclass
class ChangeTrial(Trial):
    """A flow that follows a database by Debezium.

    As a context manager it starts the database, with rows in it, and Kafka Connect as well.

    Attributes:
        rows: How many rows there are before Debezium begins with its snapshot.
    """

    settings: Mapping[str, str] = field(default_factory=lambda: SETTINGS)
    source: str = SOURCE
    rate: float | None = RATE
    rows: int = ROWS

    def __post_init__(self) -> None:
        super().__post_init__()
        self.postgres = Postgres()
        self.connect = Connect(self.broker, self.folder / "connect", f"{self.name}-connect")
        self._changes = Changes(self.texts, self.seed)
        self._following = threading.Event()
        self._made = self._tokens = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.postgres)
            self.postgres.run(*_SCHEMA)
            self._make(self._changes.rows(self.rows))
            stack.enter_context(self.connect)
            super().__enter__()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._stack.close()

    def kill_connect(self) -> None:
        """Kill Kafka Connect, Debezium with it, and start it again."""
        self._wait(self._following.is_set, PROGRESS_S, "end of the snapshot")
        self.await_progress()
        self.connect.kill()
        self.connect.start()
        self.note("kill -9 Kafka Connect")

    def reprice_all(self) -> None:
        """Change the price of each row, and nothing of its text, before a flow just started."""
        self.flow.stop()
        port = free_port()
        self.settings = {**self.settings, "HEADRACE_METRICS__ADDRESS": f"{HOST}:{port}"}
        self.workers = 1
        self.flow = self._supervised().start()
        count = self.postgres.rows(f"SELECT count(*) FROM {TABLE}")[0]["count"]  # noqa: S608
        self._make([Made(f"UPDATE {TABLE} SET price = price + 1", count)])  # noqa: S608
        self._end()
        self.drain()
        self._tokens = _tokens(port)
        self.note(f"the price of each row changed, {self._tokens} tokens")

    def expected(self, given: Sequence[Given]) -> Sequence[Given]:
        """Each event as the document or the deletion that it must become."""
        return [_document(one) for one in given]

    def finish(self, timeout_s: float = 600.0) -> ChangeResult:
        """Wait until everything is made, written and committed, stop, and count.

        Raises:
            HarnessError: It does not end in time.
        """
        found = super().finish(timeout_s)
        return ChangeResult(
            found.report,
            found.reader_faults,
            found.disturbances,
            found.seconds,
            self._made,
            found.report.records,
            _unlike(self.uri, self.postgres.rows(f"SELECT * FROM {TABLE}")),  # noqa: S608
            self._tokens,
        )

    def _work(self) -> None:
        options = {"table.include.list": f"public.{TABLE}"}
        # The topic is there: with the partitions that it is to have.
        self.connect.create(PREFIX, connector(PREFIX) | self.postgres.settings | options)
        self._await_events(self.rows)
        self._following.set()
        started = time.monotonic()
        for done in range(0, self.records, CHUNK):
            self._make(self._changes.changes(min(CHUNK, self.records - done)))
            self.pace(started, done + CHUNK)
        self._end()

    def _make(self, changes: Iterable[Made]) -> None:
        made = list(changes)
        self.postgres.run(*(one.statement for one in made))
        self._made += sum(one.events for one in made)

    def _end(self) -> None:
        """Wait until Debezium has followed all that was made."""
        self._await_events(self._made)

    def _await_events(self, count: int) -> None:
        deadline = time.monotonic() + WAIT_S
        while len(given_records(self.broker.bootstrap_servers, self.topics.source)) < count:
            if time.monotonic() > deadline:
                raise HarnessError(f"topic {self.topics.source}: no {count} events")
            time.sleep(1)


def cdc(trial: Trial) -> ChangeResult:
    """Flow, the table's writer and Kafka Connect killed, five times each, under changes."""
    with ChangeTrial(
        trial.broker, trial.folder, trial.texts, CHANGES, workers=2, seed=trial.seed
    ) as own:
        for number in range(KILLS):
            (own.kill_connect, own.kill_at_random, own.kill_writer)[number % 3]()
        own.drain()
        own.reprice_all()
        return own.finish()


def _document(event: Given) -> Given:
    """An event as the audit takes records: by a rule of its own."""
    key = str(json.loads(event.key or b"")["id"]).encode()
    value = None if event.value is None else json.loads(event.value)
    if value is None or value["op"] == "d":
        return Given(event.place, key, None, "tombstone")
    row = value["after"]
    fields = {"metadata": {"title": row["title"], "price": row["price"]}}
    text = {} if row["body"] == PLACEHOLDER else {"text": row["body"]}
    return Given(event.place, key, json.dumps(fields | text).encode(), "embedding")


def _unlike(uri: str, wanted: Sequence[Mapping[str, Any]]) -> list[str]:
    """What of the table is not as it is in the database."""
    table = lancedb.connect(uri).open_table("documents").to_lance()
    found = {
        row["id"]: (json.loads(row["metadata"])["title"], row["text"], row["price"])
        for row in table.to_table(filter="NOT deleted").to_pylist()
    }
    told = {str(row["id"]): (row["title"], row["body"], row["price"]) for row in wanted}
    return [
        f"row {name}: {found.get(name)} instead of {told.get(name)}"
        for name in sorted(found.keys() | told.keys())
        if found.get(name) != told.get(name)
    ]


def _tokens(port: int) -> int:
    with urlopen(f"http://{HOST}:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    [found] = [line for line in lines if line.startswith("headrace_tokens_total ")]
    return round(float(found.split()[1]))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''").replace("\0", "") + "'"


def _list(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids))
