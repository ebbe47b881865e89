"""The HTTP services under load: `python -m benchmarks.services search|recommend|event|after`.

Tables are of generated rows: words from a fixed list, vectors around a thousand random centres.
Each figure is of one `headrace serve` of one worker beside its client on the same machine, so
queries that are embedded take the model's time too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import lance
import numpy as np
import pyarrow as pa
from confluent_kafka import Producer

from flows.access import encoder_of, recommending_tables, single_table
from flows.settings import load
from harness.broker import Broker
from harness.flow import Flow
from harness.process import Child, bare_environment, free_port, tail
from harness.server import service
from harness.workload import Topics, make_topics
from headrace.errors import HeadraceError, UsageError
from sinks.maintenance import index_texts, index_vectors
from sinks.rows import row_key
from telemetry import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from flows.settings import Settings
    from sinks.store import TableStore

__all__ = ["main"]

CENTRES: Final = 1000
STEP: Final = 50_000
WARM: Final = 20
EVENT: Final = {"user_id": "u123", "text": "asked about a chair of oak", "timestamp": 1_700_000_000}
WORDS: Final = """
chair desk lamp table sofa shelf bed mirror carpet kettle pan knife cup plate bottle
red blue green oak beech steel glass wool cotton large small round folding quiet heavy light
office kitchen garden bedroom children travel winter summer reading sleeping cooking working
"""

BARE: Final = """
import sys, uvicorn
from fastapi import FastAPI
from serving.models import Accepted, Event
app = FastAPI()
@app.post("/event", status_code=202)
async def post_event(body: Event) -> Accepted:
    return Accepted(topic="t", partition=0, offset=0)
uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False)
"""
"""A handler that only parses, of the same framework and server."""


@dataclass(frozen=True)
class Place:
    """A folder with settings of its own."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Settings of what runs on it."""
        kept = {k: v for k, v in os.environ.items() if k.startswith("HEADRACE_MODEL__")}
        return {**kept, "HEADRACE_TABLE__URI": str(self.folder / "lancedb")}

    @property
    def settings(self) -> Settings:
        """The same, read."""
        return load(self.environment, self.folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is named, and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.services", description=__doc__)
    parser.add_argument("what", choices=["search", "recommend", "event", "after"])
    parser.add_argument("--rows", type=int, default=100_000, help="of the generated table")
    parser.add_argument("--requests", type=int, default=300, help="of each kind")
    parser.add_argument(
        "--writes", type=float, default=0.0, help="documents a second beside searches"
    )
    parser.add_argument("--rate", type=float, default=100.0, help="writes a second")
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args(arguments)
    logs.configure()
    with tempfile.TemporaryDirectory(prefix="headrace-services-") as folder:
        place = Place(Path(folder))
        try:
            if given.what == "search":
                search(place, given.rows, given.requests, given.writes)
            elif given.what == "recommend":
                recommend(place, given.rows, given.requests)
            elif given.what == "event":
                event(place, given.seconds)
            else:
                after(place, given.rate, given.seconds)
        except HeadraceError as error:
            print(f"benchmarks: {error}", file=sys.stderr)
            return error.exit_code
    return 0


def search(place: Place, rows: int, requests: int, writes: float) -> None:
    """Searches of a table with so many rows, one after the other.

    Args:
        place: Where.
        rows: Of the table.
        requests: Of each mode.
        writes: Documents a second that a flow writes to the table meanwhile; 0 for no flow.
    """
    settings = place.settings
    store = single_table(settings, encoder_of(settings))
    _fill(store, rows, texts=True)
    beside = f", {writes:.0f} writes/s" if writes else ""
    with ExitStack() as stack:
        if writes:
            stack.enter_context(_written(place, store, writes))
        client = stack.enter_context(service(place.folder, place.environment, "search"))
        for mode in ("vector", "text", "hybrid"):

            def ask(query: str, mode: str = mode) -> httpx.Response:
                return client.post("/v1/search", json={"query": query, "mode": mode})

            show(f"search by {mode}, {rows:,} rows{beside}", _timed(ask, requests))


@contextmanager
def _written(place: Place, store: TableStore, rate: float) -> Iterator[None]:
    """A flow writes to the table, new documents at a steady rate."""
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(folder=place.folder / "kafka"))
        topics = Topics()
        make_topics(broker.bootstrap_servers, topics, 2)
        own = topics.environment(broker.bootstrap_servers, "services", store.uri)
        log = place.folder / "flow.log"
        stack.enter_context(Flow({**place.environment, **own}, log=log))
        ended = threading.Event()
        sending = (broker.bootstrap_servers, topics.source, rate, ended)
        sender = threading.Thread(target=_send, args=sending, name="sender")
        sender.start()
        try:
            before = store.open().count_rows()
            _await(lambda: store.open().count_rows() > before, log)
            yield
        finally:
            ended.set()
            sender.join()


def _send(servers: str, topic: str, rate: float, ended: threading.Event) -> None:
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 0})
    chance = random.Random(11)  # noqa: S311 - reproducible, not secret
    words, number = WORDS.split(), 0
    while not ended.wait(1 / rate):
        text = " ".join(chance.sample(words, 4))
        producer.produce(topic, json.dumps({"text": text}), f"new-{number}")
        producer.poll(0)
        number += 1
    producer.flush(10)


def recommend(place: Place, rows: int, requests: int) -> None:
    """Recommendations out of so many products, to different users, one after the other."""
    settings = place.settings
    encoder = encoder_of(settings)
    tables = recommending_tables(settings, encoder)
    _fill(tables["products"], rows, texts=False)
    users = _users(tables["users"], rows, WARM + requests)
    with service(place.folder, place.environment, "search") as client:
        left = iter(users)
        show(
            f"recommendations, {rows:,} products",
            _timed(lambda _: client.get(f"/v1/users/{next(left)}/recommendations"), requests),
        )
        popular = _timed(lambda _: client.get("/v1/users/nobody/recommendations"), requests)
        show("what is popular", popular)


def event(place: Place, seconds: float) -> None:
    """`POST /event` of one worker, beside a handler that only parses."""
    if shutil.which("wrk") is None:
        raise UsageError("wrk: there is none; install it: apt-get install wrk")
    with Broker(folder=place.folder / "kafka") as broker:
        topics = Topics()
        make_topics(broker.bootstrap_servers, topics, 2)
        environment = place.environment
        environment["HEADRACE_KAFKA__BOOTSTRAP_SERVERS"] = broker.bootstrap_servers
        port = free_port()
        bare = [sys.executable, "-c", BARE, str(port)]
        child = Child(bare, log=place.folder / "bare.log", environment=bare_environment())
        with child, service(place.folder, environment, "ingest") as client:
            targets = {"bare": f"http://127.0.0.1:{port}", "headrace": str(client.base_url)}
            rates: dict[str, list[float]] = {name: [] for name in targets}
            for _ in range(3):
                for name, url in targets.items():
                    rates[name].append(_wrk(place.folder, f"{url.rstrip('/')}/event", seconds / 6))
    middle = {name: float(np.median(found)) for name, found in rates.items()}
    for name, rate in middle.items():
        print(f"/event, {name}: {rate:,.0f} requests/s")
    print(f"/event: {middle['headrace'] / middle['bare']:.2f} of the handler that only parses")


def after(place: Place, rate: float, seconds: float) -> None:
    """From an accepted write to a search by words that waits for it, at a steady rate."""
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(folder=place.folder / "kafka"))
        topics = Topics()
        make_topics(broker.bootstrap_servers, topics, 2)
        uri = str(place.folder / "lancedb")
        own = topics.environment(broker.bootstrap_servers, "services", uri)
        environment = {**place.environment, **own}
        flow = Flow(environment, log=place.folder / "flow.log")
        stack.enter_context(flow)
        client = stack.enter_context(service(place.folder, environment))
        _await(lambda: client.get("/health/ready").status_code == 200, place.folder / "flow.log")
        asyncio.run(_writes(str(client.base_url), 5.0, 5.0))
        found = asyncio.run(_writes(str(client.base_url), rate, seconds))
        show(f"write accepted to found, {rate:.0f} writes/s", found)


async def _writes(url: str, rate: float, seconds: float) -> list[float]:
    """Milliseconds from each 202 until a search that waits for it is answered."""
    words = _queries(int(rate * seconds))
    limits = httpx.Limits(max_connections=400)
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits) as client:

        async def one(number: int, text: str) -> float:
            put = await client.put(f"/v1/documents/{number}", json={"text": f"{text} {number}"})
            put.raise_for_status()
            began = time.perf_counter()
            asked = {"query": text, "mode": "text", "k": 1, "after": put.json()}
            (await client.post("/v1/search", json=asked)).raise_for_status()
            return 1000 * (time.perf_counter() - began)

        tasks: list[asyncio.Task[float]] = []
        started = time.perf_counter()
        for number, text in enumerate(words):
            await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
            tasks.append(asyncio.create_task(one(number, text)))
        return list(await asyncio.gather(*tasks))


def show(what: str, times_ms: Sequence[float]) -> None:
    """Print percentiles."""
    middle, high = np.percentile(times_ms, [50, 99])
    print(f"{what}: p50 {middle:.1f} ms, p99 {high:.1f} ms, of {len(times_ms)}", flush=True)


def _await(done: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 120
    while not done():
        if time.monotonic() > deadline:
            raise UsageError(f"waited in vain; {tail(log, 1)}")
        time.sleep(0.1)


def _timed(ask: Callable[[str], httpx.Response], requests: int) -> list[float]:
    """Milliseconds of requests one after the other, each of other words."""
    times: list[float] = []
    for query in _queries(WARM + requests):
        began = time.perf_counter()
        ask(query).raise_for_status()
        times.append(1000 * (time.perf_counter() - began))
    return times[WARM:]


def _queries(count: int) -> list[str]:
    chance = random.Random(7)  # noqa: S311 - reproducible, not secret
    words = WORDS.split()
    return [" ".join(chance.sample(words, 4)) for _ in range(count)]


def _fill(store: TableStore, rows: int, *, texts: bool) -> None:
    """Generated rows, and the indexes that upkeep would make."""
    store.ensure()
    chance = np.random.default_rng(5)
    centres = chance.standard_normal((CENTRES, store.schema.dimension)).astype(np.float32)
    for first in range(0, rows, STEP):
        numbers = range(first, min(first + STEP, rows))
        vectors = centres[chance.integers(CENTRES, size=len(numbers))]
        vectors += 0.7 * chance.standard_normal(vectors.shape, dtype=np.float32)
        _append(store, numbers, vectors)
    dataset = store.open()
    if texts:
        index_texts(dataset)
    if rows >= 50_000:  # as `table.index_rows` has it
        index_vectors(dataset)


def _append(store: TableStore, numbers: range, vectors: np.ndarray[Any, Any]) -> None:
    schema = store.schema
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    count, texts = len(numbers), _queries(len(numbers))
    ids = [f"d{number}" for number in numbers]
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), schema.dimension)
    columns: dict[str, Any] = {
        "id": ids,
        "vector": flat,
        "text": texts,
        "title": texts,
        "metadata": ["{}"] * count,
        "heat": [float(number % 997) for number in numbers],
        "in_stock": [number % 10 > 0 for number in numbers],
        "deleted": [False] * count,
        "chunk": [0] * count,
        "event_time": [0] * count,
        "embedded_at": [0] * count,
        "truncated": [False] * count,
        "tokens": [6] * count,
        "source_partition": [0] * count,
        "source_offset": list(numbers),
        "key": [row_key(identity) for identity in ids],
    }
    arrays = [
        columns[f.name]
        if isinstance(columns.get(f.name), pa.Array)
        else pa.array(columns.get(f.name, [None] * count), f.type)
        for f in schema.arrow
    ]
    lance.write_dataset(
        pa.Table.from_arrays(arrays, schema=schema.arrow), store.path, mode="append"
    )


def _users(store: TableStore, products: int, count: int) -> list[str]:
    """Users who have viewed twenty products each; their ids."""
    store.ensure()
    chance = np.random.default_rng(9)
    vectors = chance.standard_normal((count, store.schema.dimension)).astype(np.float32)
    _append(store, range(count), vectors)
    views = [
        [{"product_id": f"d{p}", "title": "", "at": 0} for p in chance.integers(products, size=20)]
        for _ in range(count)
    ]
    told = [json.dumps({"weight": 1.0, "views": own}) for own in views]
    ids = [f"d{number}" for number in range(count)]
    changed = pa.table(
        {"key": pa.array([row_key(i) for i in ids], pa.binary(16)), "metadata": told}
    )
    merge = store.open().merge_insert("key")
    merge.when_matched_update_all().execute(changed)
    return ids


def _wrk(folder: Path, url: str, seconds: float) -> float:
    """Requests a second of 32 connections."""
    script = folder / "event.lua"
    body = json.dumps(EVENT).replace('"', '\\"')
    script.write_text(
        f'wrk.method = "POST"\nwrk.body = "{body}"\n'
        'wrk.headers["Content-Type"] = "application/json"\n'
    )
    command = ["wrk", "-t1", "-c32", f"-d{max(2, round(seconds))}s", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    if "Non-2xx" in done.stdout:
        raise UsageError(f"wrk: {url}: {done.stdout}")
    found = re.search(r"Requests/sec: +([\d.]+)", done.stdout)
    assert found is not None
    return float(found[1])


if __name__ == "__main__":
    sys.exit(main())
