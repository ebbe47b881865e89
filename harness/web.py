"""Kills the HTTP ingest under load, then compares what it accepted with what came of it.

Clients send events, each under an `Idempotency-Key` of its own, and send an event again under the
same key until it is accepted: so one whose answer was lost with the server is written twice.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import httpx

from harness.audit import committed_offsets, read_topic
from harness.flow import Flow
from harness.process import HarnessError, free_port, tail
from harness.server import start, until
from harness.workload import Topics, make_topics
from sinks.schema import TableSchema
from sinks.store import TableStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from harness.broker import Broker
    from harness.cluster import Cluster

__all__ = ["Clients", "WebReport", "compare_topic", "kill_servers"]

CLIENTS: Final = 8
GROUP: Final = "web"
PARTITIONS: Final = 2
ACCEPTED_S: Final = 120.0
DRAIN_S: Final = 600.0
PAUSE_S: Final = 0.05
"""How long a client rests after an event, and while the server is away."""


@dataclass(frozen=True)
class WebReport:
    """What a trial counted.

    Attributes:
        kills: How often the server was killed.
        accepted: Events that were answered 202.
        lost: Of those, how many are not at the place in Kafka that the answer names.
        twice: Keys that stand in the topic more than once, their first answer having been lost.
        missing: Keys that were accepted and have no row in the table.
        doubled: Keys with more than one row.
        seconds: Of the whole.
    """

    kills: int
    accepted: int
    lost: int
    twice: int
    missing: int
    doubled: int
    seconds: float

    @property
    def clean(self) -> bool:
        """Whether nothing was lost or doubled."""
        return not (self.lost or self.missing or self.doubled)

    @property
    def disturbances(self) -> list[str]:
        """What was done."""
        return [f"server killed {self.kills} times"]

    def __str__(self) -> str:
        return (
            f"{self.accepted} events accepted, {self.lost} not in the topic, {self.twice} there "
            f"twice, {self.missing} not in the table, {self.doubled} there twice"
        )


class Clients:
    """Clients that send events on and on, in a thread of their own while it is a context.

    Args:
        url: The server's.
        texts: What the events say, in turn.
        count: How many clients.

    Attributes:
        accepted: The key of each accepted event, by its partition and offset.
    """

    def __init__(self, url: str, texts: Sequence[str], count: int = CLIENTS) -> None:
        self.accepted: dict[tuple[int, int], str] = {}
        self._url = url
        self._texts = texts
        self._count = count
        self._ended = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="clients")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Send nothing more."""
        self._ended = True
        self._thread.join()

    def wait_for(self, more: int) -> None:
        """Wait until so many more events are accepted.

        Raises:
            HarnessError: They were not in time.
        """
        wanted = len(self.accepted) + more
        until(lambda: len(self.accepted) >= wanted, ACCEPTED_S, f"clients: {more} more events")

    async def _run(self) -> None:
        async with httpx.AsyncClient(base_url=self._url, timeout=5) as client:
            await asyncio.gather(*(self._send(client, number) for number in range(self._count)))

    async def _send(self, client: httpx.AsyncClient, number: int) -> None:
        sent = 0
        while not self._ended:
            text = self._texts[(sent * self._count + number) % len(self._texts)]
            place = await self._once(client, f"{number}-{sent}", text)
            if place is not None:
                self.accepted[place] = f"{number}-{sent}"
                sent += 1
            await asyncio.sleep(PAUSE_S)

    async def _once(self, client: httpx.AsyncClient, key: str, text: str) -> tuple[int, int] | None:
        """Where an event stands; None where no answer says that it does."""
        body: dict[str, Any] = {"user_id": "u", "text": text, "timestamp": 1_700_000_000}
        try:
            answer = await client.post("/event", json=body, headers={"Idempotency-Key": key})
        except httpx.TransportError:
            return None
        if answer.status_code != 202:
            return None
        place = answer.json()
        return place["partition"], place["offset"]


def kill_servers(
    broker: Broker | Cluster, folder: Path, texts: Sequence[str], kills: int, each: int
) -> WebReport:
    """Kill a server under load, again and again, with a flow behind it.

    Args:
        broker: A running one.
        folder: An empty one, for table and logs.
        texts: What the events say.
        kills: How often.
        each: How many events are accepted before the next.

    Raises:
        HarnessError: Server or flow did not come up, or did not get on.
    """
    began = time.monotonic()
    topics = Topics("events", "events.embeddings", "events.dead-letters")
    make_topics(broker.bootstrap_servers, topics, PARTITIONS)
    environment = topics.environment(broker.bootstrap_servers, GROUP, str(folder / "lancedb"))
    port = free_port()
    with (
        Flow(environment, recovery=folder / "recovery", log=folder / "flow.log") as flow,
        Clients(f"http://127.0.0.1:{port}", texts) as clients,
    ):
        for _ in range(kills):
            child = start(environment, port, folder / "server.log", "ingest")
            clients.wait_for(each)
            child.kill()
        clients.stop()
        until(lambda: _drained(flow, broker, topics), DRAIN_S, "flow: not all events")
    accepted = clients.accepted
    in_topic = compare_topic(broker.bootstrap_servers, topics.source, accepted)
    in_table = _compare_table(folder / "lancedb", set(accepted.values()))
    return WebReport(kills, len(accepted), *in_topic, *in_table, time.monotonic() - began)


def _drained(flow: Flow, broker: Broker | Cluster, topics: Topics) -> bool:
    if not flow.alive:
        raise HarnessError(f"flow: ended: {tail(flow.log, 5)}")
    time.sleep(0.5)
    offsets = committed_offsets(broker.bootstrap_servers, topics, GROUP)
    return all(committed >= end for committed, end in offsets.values())


def compare_topic(
    servers: str, topic: str, accepted: Mapping[tuple[int, int], str]
) -> tuple[int, int]:
    """Accepted events that are not at their place in the topic, and keys that stand there twice."""
    held: dict[tuple[int | None, int | None], str] = {}
    for message in read_topic(servers, topic):
        held[message.partition(), message.offset()] = (message.key() or b"").decode()
    lost = sum(held.get(place) != key for place, key in accepted.items())
    return lost, sum(number > 1 for number in Counter(held.values()).values())


def _compare_table(uri: Path, keys: set[str]) -> tuple[int, int]:
    """Keys without a row, and keys with several."""
    store = TableStore(str(uri), "documents", TableSchema(1), "", "")
    column = store.open().to_table(columns=["id"], filter="NOT deleted").column("id")
    rows = Counter(column.to_pylist())
    return sum(key not in rows for key in keys), sum(number > 1 for number in rows.values())
