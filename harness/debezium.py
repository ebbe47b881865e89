"""Records what Debezium writes of a real PostgreSQL: `make debezium`.

    python -m harness.debezium [--folder FOLDER]

The events go to tests/debezium, one a line, as `{"topic", "key", "value"}` with key and value as
they were: `plain.ndjson` without their schemas, `typed.ndjson` with them. The tests read those, so
that they need neither a PostgreSQL nor the jars.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from confluent_kafka.admin import AdminClient

from harness.audit import read_topic
from harness.broker import Broker
from harness.connect import Connect, connector
from harness.postgres import Postgres
from harness.process import ROOT, HarnessError
from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["RECORDED", "record"]

RECORDED: Final = ROOT / "tests" / "debezium"
WAIT_S: Final = 60.0

PLAIN: Final = "plain"
TYPED: Final = "typed"
OPTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    PLAIN: {
        "table.include.list": "public.*",
        "skipped.operations": "none",  # truncates too
        "heartbeat.interval.ms": "1000",
        "provide.transaction.metadata": "true",
    },
    TYPED: {
        "table.include.list": "public.lines,public.marks",
        "decimal.handling.mode": "string",
    },
}
FEW: Final = 3
"""How many are kept of a topic that tells of no row."""

_BEFORE: Final = (
    """CREATE TABLE products (id int PRIMARY KEY, title text NOT NULL, description text,
       price numeric(10, 2), weight double precision, sizes text[], attributes jsonb, photo bytea,
       active boolean, sold date, made timestamp, changed timestamptz)""",
    """CREATE TABLE lines ("order" bigint, line smallint, text text, amount numeric,
       PRIMARY KEY (line, "order"))""",
    "CREATE EXTENSION hstore",
    # Large values lie outside of the row, even if they are not so large.
    """CREATE TABLE articles (id uuid PRIMARY KEY, title text, body text, parts text[],
       numbers int[], weights double precision[], keys uuid[], words hstore, raw bytea, more jsonb,
       price int) WITH (toast_tuple_target = 128)""",
    *(
        f"ALTER TABLE articles ALTER {column} SET STORAGE EXTERNAL"
        for column in ("body", "parts", "numbers", "weights", "keys", "words", "raw", "more")
    ),
    "CREATE TABLE notes (id text PRIMARY KEY, body text, stars int)",
    "ALTER TABLE notes ALTER body SET STORAGE EXTERNAL",
    "ALTER TABLE notes REPLICA IDENTITY FULL",
    "CREATE TABLE logs (line text)",
    "CREATE TABLE marks (id int PRIMARY KEY)",
    """INSERT INTO products VALUES (1, 'Oak chair', 'A chair of solid oak.', 129.90, 7.5,
       '{S,M}', '{"legs": 4}', '\\xdeadbeef', true, '2026-01-31', '2026-01-31 12:00:00.5',
       '2026-01-31 12:00:00+01')""",
    "INSERT INTO products (id, title) VALUES (2, 'Pine table')",
    "INSERT INTO lines VALUES (7, 1, 'Two oak chairs', 259.8), (7, 2, 'A pine table', 80)",
    "INSERT INTO notes VALUES ('first', 'Read by the snapshot', 5)",
)
_AFTER: Final = (
    "INSERT INTO products (id, title, description) VALUES (3, 'Stool', 'It has three legs.')",
    "UPDATE products SET title = 'Oak armchair' WHERE id = 1",
    "UPDATE products SET price = 99, active = false WHERE id = 1",
    "UPDATE products SET id = 20 WHERE id = 2",
    "DELETE FROM products WHERE id = 3",
    "INSERT INTO products (id, title) VALUES (3, 'Stool, back again')",
    "ALTER TABLE products ADD COLUMN color text DEFAULT 'brown'",
    "INSERT INTO products (id, title, color) VALUES (4, 'Shelf', 'white')",
    "INSERT INTO lines VALUES (8, 1, 'A shelf', 49.5)",
    "UPDATE lines SET text = 'Two armchairs of oak' WHERE \"order\" = 7 AND line = 1",
    'UPDATE lines SET "order" = 9 WHERE "order" = 7 AND line = 2',
    'DELETE FROM lines WHERE "order" = 8',
    """INSERT INTO articles VALUES ('11111111-2222-3333-4444-555555555555', 'Long',
       repeat('Words. ', 40), array_fill('part'::text, '{40}'), array_fill(7, '{70}'),
       array_fill(0.5::double precision, '{40}'),
       array_fill('99999999-2222-3333-4444-555555555555'::uuid, '{12}'),
       hstore('word', repeat('word ', 60)), decode(repeat('ab', 300), 'hex'),
       jsonb_build_object('m', repeat('more ', 60)), 1)""",
    "UPDATE articles SET price = 2",
    "UPDATE articles SET body = repeat('Other. ', 50), more = '{}'",
    "UPDATE articles SET id = '22222222-2222-3333-4444-555555555555'",
    "INSERT INTO notes VALUES ('Grüße, 世界', repeat('A long note. ', 180), 3)",
    "UPDATE notes SET stars = 4 WHERE stars = 3",
    "DELETE FROM notes WHERE stars = 4",
    "INSERT INTO logs VALUES ('There is no key')",
    "SELECT pg_logical_emit_message(true, 'shop', 'A message in the log')",
    "TRUNCATE lines",
)
_MARK: Final = "INSERT INTO marks VALUES (1)"


def record(folder: Path) -> Mapping[str, int]:
    """Write events of each kind to a folder.

    Returns:
        How many are in each file.

    Raises:
        HarnessError: They don't come.
    """
    with (
        tempfile.TemporaryDirectory(prefix="headrace-debezium-") as scratch,
        Postgres() as postgres,
        Broker(folder=Path(scratch, "kafka")) as broker,
        Connect(broker, Path(scratch, "connect")) as connect,
    ):
        postgres.run(*_BEFORE)
        for name, options in OPTIONS.items():
            settings = connector(name, schemas=name == TYPED) | postgres.settings
            connect.create(name, {**settings, **options})
        for name in OPTIONS:
            _await_event(broker.bootstrap_servers, f"{name}.public.lines", 2)  # of the snapshot
        postgres.run(*_AFTER, _MARK)
        return {name: _write(broker.bootstrap_servers, name, folder) for name in OPTIONS}


def _write(servers: str, name: str, folder: Path) -> int:
    mark = f"{name}.public.marks"
    _await_event(servers, mark, 1)
    lines = [
        line for topic in _topics(servers, name) if topic != mark for line in _lines(servers, topic)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    Path(folder, f"{name}.ndjson").write_text("".join(lines), encoding="utf-8")
    return len(lines)


def _lines(servers: str, topic: str) -> Iterator[str]:
    most = None if ".public." in topic else FEW
    for message in islice(read_topic(servers, topic), most):
        key, value = (part and part.decode() for part in (message.key(), message.value()))
        one = {"topic": topic, "key": key, "value": value}
        yield json.dumps(one, ensure_ascii=False) + "\n"


def _topics(servers: str, prefix: str) -> list[str]:
    found = AdminClient({"bootstrap.servers": servers}).list_topics(timeout=30).topics
    return sorted(topic for topic in found if prefix in topic.split("."))


def _await_event(servers: str, topic: str, count: int) -> None:
    """Wait until a topic is there and has so many records."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        there = topic in AdminClient({"bootstrap.servers": servers}).list_topics(timeout=30).topics
        if there and len(list(read_topic(servers, topic))) >= count:
            return
        time.sleep(0.5)
    raise HarnessError(f"topic {topic}: no {count} events in {WAIT_S:.0f} s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Record, and say how much."""
    parser = argparse.ArgumentParser(prog="python -m harness.debezium", description=__doc__)
    parser.add_argument("--folder", type=Path, default=RECORDED)
    given = parser.parse_args(arguments)
    try:
        found = record(given.folder)
    except HeadraceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for name, count in found.items():
        sys.stdout.write(f"{given.folder / name}.ndjson: {count} events\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
