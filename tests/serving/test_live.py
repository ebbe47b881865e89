"""How the stream stands, as the page asks for it."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
import pytest
from prometheus_client import start_http_server

from clients.errors import BrokerError
from serving.live import FlowMetrics, Live
from sinks.latest import Latest
from sinks.search import TableReader
from telemetry.metrics import Metrics
from telemetry.scrape import Totals
from tests.samples import embedding, outcomes
from tests.serving.services import SECRET, bearer, serving, settings_of, token
from tests.serving.test_search import filled
from tests.sinks.tables import Table, store_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from serving.models import LiveState


class World:
    """What is looked at, as a test wants it."""

    def __init__(self, folder: Path) -> None:
        self.table = Table(store_in(folder))
        self.totals: Totals | None = Totals(
            {"topic": 10.0}, {("d", 0): 3.0}, {"bad_json": 1.0}, {"topic": {10.0: 5.0, 20.0: 10.0}}
        )
        self.broker_away = False
        self.live = Live(self.flow, Latest(TableReader(self.table.store)), self.broker)

    def flow(self) -> Totals:
        """The flow's metrics."""
        if self.totals is None:
            raise OSError("refused")
        return self.totals

    def broker(self) -> None:
        """Whether it is there."""
        if self.broker_away:
            raise BrokerError("kafka.bootstrap_servers: away")

    def look(self) -> LiveState:
        """A fresh look."""
        return self.live._look()


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A world in which all is well."""
    return World(tmp_path)


def test_all_is_well(world: World) -> None:
    """Rate and freshness are of what came between looks; the rest is as it is."""
    world.table.commit(outcomes([embedding("a", "text of a")], embedded_at=5))
    first = world.look()
    assert (first.flow, first.kafka, first.docs_per_s) == (None, None, None)
    assert first.freshness_ms == {}
    assert [(lane.topic, lane.offsets) for lane in first.lag] == [("d", 3)]
    assert first.dead_letters == {"bad_json": 1}
    assert [one.id for one in first.latest] == ["a"]
    assert world.totals is not None
    ages = {"topic": {10.0: 5.0, 20.0: 20.0}}
    world.totals = replace(world.totals, sent={"topic": 20.0}, ages=ages)
    time.sleep(0.05)
    then = world.look()
    assert then.docs_per_s is not None
    assert 0 < then.docs_per_s < 300
    assert then.freshness_ms["topic"].p50 == 15.0


def test_who_may_not_see_documents(world: World) -> None:
    """They see the same but for those, of the same look."""
    world.table.commit(outcomes([embedding("a", "text of a")]))

    async def ask() -> None:
        whole, rest = await world.live.state(), await world.live.state(documents=False)
        assert [one.id for one in whole.latest] == ["a"]
        assert rest == whole.model_copy(update={"latest": []})
        [event, *_] = [event async for event in world.live.events(documents=False)]
        assert json.loads(event.removeprefix("data: "))["latest"] == []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serving.live.STREAM_S", 0.1)
        asyncio.run(ask())


def test_the_flow_is_away(world: World) -> None:
    """That is said, and nothing old is shown as if it were now."""
    world.look()
    world.totals = None
    found = world.look()
    assert found.flow == "the flow does not answer"
    assert (found.docs_per_s, found.freshness_ms, found.lag) == (None, {}, [])


def test_the_flow_was_started_again(world: World) -> None:
    """It counts anew, which is no negative rate."""
    world.look()
    world.totals = Totals({"topic": 1.0})
    assert world.look().docs_per_s is None


def test_kafka_is_away(world: World) -> None:
    """That is said, by name."""
    world.broker_away = True
    assert world.look().kafka == "kafka.bootstrap_servers: away"


def test_many_viewers_cost_one_look(world: World) -> None:
    """Within a second the same look serves all."""

    async def ask() -> None:
        states = await asyncio.gather(*(world.live.state() for _ in range(5)))
        assert all(state is states[0] for state in states)

    asyncio.run(ask())
    assert len(world.live._looks) == 1


@pytest.fixture
def flow() -> Iterator[tuple[str, Metrics]]:
    """The metrics of a flow at an address."""
    metrics = Metrics()
    metrics.committed("topic", [outcomes([embedding("a")])], 0.01)
    server, thread = start_http_server(0, "127.0.0.1", metrics.registry)
    yield f"127.0.0.1:{server.server_port}", metrics
    server.shutdown()
    server.server_close()
    thread.join()


def test_metrics_of_a_flow(flow: tuple[str, Metrics]) -> None:
    """They are found by the address of the first process, or by what is set."""
    address, _ = flow
    assert FlowMetrics((), address)().topic == 1
    assert FlowMetrics([f"http://{address}/metrics"] * 2, "")().topic == 2
    with pytest.raises(OSError, match="flow_metrics"):
        FlowMetrics((), "")()


def test_over_http(flow: tuple[str, Metrics], tmp_path: Path) -> None:
    """One answer, and a stream of them that ends by itself; both need a token."""
    filled(tmp_path)
    settings = settings_of(
        tmp_path,
        auth={"jwt_key": SECRET},
        metrics={"address": flow[0]},
        table={"uri": str(tmp_path), "columns": {"price": "float64"}},
        kafka={"bootstrap_servers": "127.0.0.1:1"},
    )
    with serving(settings) as url, httpx.Client(base_url=url, timeout=60) as client:
        assert client.get("/v1/live").status_code == 401
        assert client.get("/v1/live/events").status_code == 401
        state = client.get("/v1/live", headers=bearer(token())).json()
        assert state["flow"] is None
        assert "127.0.0.1:1" in state["kafka"]
        assert state["latest"]
        with client.stream("GET", "/v1/live/events", headers=bearer(token())) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            events = [line for line in answer.iter_lines() if line]
        assert events
        assert json.loads(events[-1].removeprefix("data: "))["latest"] == state["latest"]
