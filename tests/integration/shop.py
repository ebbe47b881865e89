"""A shop: topics and tables of `flows.recommend`, and what must come of its views and stocks."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, cast

import lance
import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.cimpl import NewTopic

from harness.flow import Flow
from headrace.v1.embedding_pb2 import Embedding
from operators.activity import Activity, Fading, Viewed
from operators.partitions import partition_of
from operators.records import SOURCE_HEADER, Lane
from tests.brokers import admin, config_of, read_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from confluent_kafka import Message

    from harness.broker import Broker

HOUR_MS = 3_600_000
PARTITIONS = 2
WAIT_S = 120.0


@dataclass
class Shop:
    """Topics, tables and flow; as a context manager it starts the flow and stops it.

    Attributes:
        broker: A running broker.
        folder: An empty folder.
        workers: Worker threads.
        settings: Further settings.
    """

    broker: Broker
    folder: Path
    workers: int = 1
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name = f"s-{uuid.uuid4().hex[:12]}"
        names = ("documents", "views", "inventory", "products", "users", "dead")
        self.topics = {name: f"{self.name}.{name}" for name in names}
        new = [NewTopic(topic, PARTITIONS, 1) for topic in self.topics.values()]
        client = admin(self.broker)
        for made in client.create_topics(new).values():
            made.result(30)
        self.producer = Producer({"bootstrap.servers": self.broker.bootstrap_servers})
        self.flow = Flow(
            self.environment,
            workers=self.workers,
            recovery=self.folder / "recovery",
            log=self.folder / "flow.log",
            flow="flows.recommend",
        )

    @property
    def environment(self) -> dict[str, str]:
        """The flow's and the services' settings."""
        return {
            "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": self.broker.bootstrap_servers,
            "HEADRACE_KAFKA__APPLICATION_ID": self.name,
            "HEADRACE_SOURCE__TOPICS": self.topics["documents"],
            "HEADRACE_DEAD_LETTERS__TOPIC": self.topics["dead"],
            "HEADRACE_RECOMMEND__VIEWS_TOPIC": self.topics["views"],
            "HEADRACE_RECOMMEND__INVENTORY_TOPIC": self.topics["inventory"],
            "HEADRACE_RECOMMEND__EMBEDDINGS_TOPIC": self.topics["products"],
            "HEADRACE_RECOMMEND__USERS_TOPIC": self.topics["users"],
            "HEADRACE_TABLE__URI": str(self.folder / "lancedb"),
            "HEADRACE_RECOVERY__SUSPECTS": str(self.folder / "suspects"),
            "HEADRACE_METRICS__ADDRESS": "",
            **self.settings,
        }

    def __enter__(self) -> Self:
        self.flow.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.flow.terminate()

    def view(self, user: str, product: str, title: str, at_ms: int, **more: Any) -> None:
        """Write a view; `key` stands for another key than the user."""
        key = more.pop("key", user.encode())
        value = {"user_id": user, "product_id": product, "title": title, "timestamp": at_ms, **more}
        self.write("views", key, json.dumps(value).encode())

    def stock(self, product: str, at_ms: int, quantity: int) -> None:
        """Write a stock."""
        value = {"in_stock": quantity > 0, "quantity": quantity, "timestamp": at_ms}
        self.write("inventory", product.encode(), json.dumps(value).encode())

    def write(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """Write a record as it is."""
        self.producer.produce(self.topics[topic], value, key)
        self.producer.poll(0)

    def settle(self) -> None:
        """Flush what was written, and wait until every sink has all of it."""
        self.producer.flush(30)
        deadline = time.monotonic() + WAIT_S
        # Twice: a view in another lane than its user's comes again.
        while self._behind() or self._behind():
            assert time.monotonic() < deadline, self.flow.log_text()[-4000:]
            time.sleep(0.1)

    def read(self, topic: str) -> list[Message]:
        """All that a `read_committed` reader sees of a topic."""
        return [
            message
            for partition in range(PARTITIONS)
            for message in read_all(self.broker, self.topics[topic], partition)
        ]

    def rows(self, table: str) -> dict[str, dict[str, Any]]:
        """A table's rows, by id."""
        found = self._table(table).to_table(filter="id IS NOT NULL").to_pylist()
        assert len({row["id"] for row in found}) == len(found), "a key stands twice"
        return {row["id"]: row for row in found}

    def _behind(self) -> int:
        ends = self._ends()
        try:
            tables = [self._progress(name) for name in ("products", "users")]
        except (OSError, ValueError):
            return len(ends)
        kafka = config_of(self.broker, f"{self.name}-recommend")
        consumer = kafka.observer()
        try:
            lanes = {key: Lane.parse(key) for key in ends}
            committed = {
                key: kafka.committed(consumer, lane.topic, lane.partition) or 0
                for key, lane in lanes.items()
            }
        finally:
            consumer.close()
        return sum(
            end > held.get(lane, 0) for lane, end in ends.items() for held in (committed, *tables)
        )

    def _ends(self) -> dict[str, int]:
        consumer = Consumer(
            {"bootstrap.servers": self.broker.bootstrap_servers, "group.id": "ends"}
        )
        try:
            return {
                Lane(self.topics[name], number).key: consumer.get_watermark_offsets(
                    TopicPartition(self.topics[name], number), 20
                )[1]
                for name in ("views", "inventory")
                for number in range(PARTITIONS)
            }
        finally:
            consumer.close()

    def _progress(self, table: str) -> dict[str, int]:
        fence = self._table(table).to_table(columns=["metadata"], filter="id IS NULL")
        return dict(json.loads(fence.column("metadata")[0].as_py())["progress"])

    def _table(self, table: str) -> lance.LanceDataset:
        return lance.dataset(str(self.folder / "lancedb" / f"{table}.lance"))


@dataclass(frozen=True)
class Wanted:
    """What a shop's topics ask for, taken from their records in order.

    Attributes:
        outcomes: Of each view that has one of its own, its place: once in each output topic.
        users: The state of each user.
        products: Title, stock and the number of different views of each product.
        copies: The places of views in other lanes than their users'.
        dead: The places of bad records.
    """

    outcomes: set[str]
    users: dict[str, Activity]
    products: dict[str, dict[str, Any]]
    copies: set[str]
    dead: set[str]


def place(message: Message) -> str:
    """Where a record stands, as its outcome's header tells it."""
    return f"{message.topic()}/{message.partition()}/{message.offset()}"


def source(message: Message) -> str:
    """Where the record stands that another one is the outcome of."""
    headers = cast("list[tuple[str, bytes]]", message.headers() or [])
    [found] = [value for name, value in headers if name == SOURCE_HEADER]
    return found.decode()


def wanted(shop: Shop, vector: Callable[[str], np.ndarray[Any, Any]], fading: Fading) -> Wanted:
    """What the views and stocks ask for, by a plain loop over the records.

    Args:
        shop: The shop.
        vector: The vector of a title.
        fading: How views fade.
    """
    found = Wanted(set(), {}, defaultdict(dict), set(), set())
    counted: dict[str, list[int]] = defaultdict(list)
    for message in shop.read("views"):
        _view(found, counted, message, vector, fading)
    for message in shop.read("inventory"):
        stock = json.loads(message.value() or b"null")
        product = found.products[(message.key() or b"").decode()]
        if stock["timestamp"] >= product.get("stock_time", 0):
            product |= {"stock_time": stock["timestamp"], "quantity": stock["quantity"]}
    for name, times in counted.items():
        newest = max(times)
        heat = math.log2(sum(2 ** ((at - newest) / (6 * HOUR_MS)) for at in times))
        found.products[name]["heat"] = heat + newest / (6 * HOUR_MS)
    return found


def _view(
    found: Wanted,
    counted: dict[str, list[int]],
    message: Message,
    vector: Callable[[str], np.ndarray[Any, Any]],
    fading: Fading,
) -> None:
    try:
        fields = json.loads(message.value() or b"null")
        user, title, at = fields["user_id"], fields["title"], fields["timestamp"]
    except (ValueError, KeyError, TypeError):
        found.dead.add(place(message))
        return
    home = partition_of(user.encode(), PARTITIONS)
    if message.partition() != home:
        found.copies.add(place(message))
        return
    found.outcomes.add(place(message))
    view = Viewed(fields["product_id"], title, at)
    product = found.products[view.product]
    if at >= product.get("event_time", 0):
        product |= {"event_time": at, "title": title}
    state = found.users.get(user)
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    if state is None:
        total = vector(title).astype(np.float64)
        found.users[user] = Activity(total, at, (view,), Lane("", partition), offset)
    elif state.has(view, fading.length):
        return
    else:
        found.users[user] = state.after(view, vector(title), fading)
    counted[view.product].append(at)


def titles(shop: Shop) -> dict[str, np.ndarray[Any, Any]]:
    """The vector of each title, as the topic of products has it."""
    vectors: dict[str, np.ndarray[Any, Any]] = {}
    for message in shop.read("products"):
        made = Embedding.FromString(message.value() or b"")
        vectors[json.loads(made.metadata_json)["title"]] = np.frombuffer(made.vector, np.float32)
    return vectors
