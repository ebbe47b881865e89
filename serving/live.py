"""What the page shows of the stream: how fast, how fresh, how far behind, the last documents."""

import asyncio
import time
import urllib.request
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Final, Protocol

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from headrace.errors import HeadraceError
from serving.guard import caller_of, guarded
from serving.models import FreshDocument, Freshness, LaneLag, LiveState
from serving.openapi import problems
from serving.search import READ
from sinks.latest import Fresh
from telemetry.scrape import Totals, percentile, read_totals

__all__ = ["Documents", "FlowMetrics", "Live", "live_router"]

log = structlog.get_logger(__name__)

EVERY_S: Final = 1.0
BROKER_EVERY_S: Final = 5.0
WINDOW: Final = 10
"""How many looks a rate and a percentile are of."""

STREAM_S: Final = 8.0
"""How long a stream of events lasts; whoever reads it asks again. A server that is asked to end
waits for no longer."""

TIMEOUT_S: Final = 1.0
MOST_PROCESSES: Final = 256


class FlowMetrics:
    """Reads the metrics of all of a flow's processes.

    Args:
        urls: Where they are; unless given those of `address` and the ports behind it, as far as
            one answers.
        address: Host and port of the first process's metrics; empty where there are none.
        topics: What the flow reads: metrics of one that reads other topics are left out.
        pipeline: Which of a flow's pipelines is meant; empty where it has none.
    """

    def __init__(
        self, urls: Sequence[str], address: str, topics: Collection[str] = (), pipeline: str = ""
    ) -> None:
        self._topics = topics
        self._pipeline = pipeline
        self._urls = urls
        self._address = address

    def __call__(self) -> Totals:
        """What they say together.

        Raises:
            OSError: A process does not answer.
            ValueError: What answers is no flow.
        """
        if self._urls:
            return self._totals([_fetched(url) for url in self._urls])
        if not self._address:
            raise OSError("metrics.address is empty; set serve.flow_metrics")
        host, _, port = self._address.rpartition(":")
        texts = [_fetched(f"http://{host}:{port}/metrics")]
        for number in range(1, MOST_PROCESSES):
            try:
                texts.append(_fetched(f"http://{host}:{int(port) + number}/metrics"))
            except OSError:
                break
        return self._totals(texts)

    def _totals(self, texts: Sequence[str]) -> Totals:
        return read_totals(texts, self._topics, self._pipeline)


def _fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 - from settings
        text: bytes = answer.read()
    return text.decode()


class Documents(Protocol):
    """The last documents of a table."""

    def documents(self) -> list[Fresh]:
        """The last ones, newest first."""


class Live:
    """Looks at the flow and the table, once a second for all who ask.

    Args:
        flow: Reads the flow's metrics.
        latest: The last documents of the table.
        broker: Raises `HeadraceError` when the broker is away.
    """

    def __init__(
        self, flow: Callable[[], Totals], latest: Documents, broker: Callable[[], None]
    ) -> None:
        self._flow = flow
        self._latest = latest
        self._broker = broker
        self._looking: asyncio.Task[LiveState] | None = None
        self._broker_told: str | None = None
        self._broker_until = 0.0
        self._looks: deque[tuple[float, Totals]] = deque(maxlen=WINDOW + 1)
        self._until = 0.0

    async def state(self, *, documents: bool = True) -> LiveState:
        """How things stand.

        Args:
            documents: Whether the last documents are shown.
        """
        looking = self._looking
        if looking is None or (looking.done() and time.monotonic() >= self._until):
            self._until = time.monotonic() + EVERY_S
            looking = self._looking = asyncio.create_task(asyncio.to_thread(self._look))
        # One look at a time: it goes on when one who waits for it leaves.
        found = await asyncio.shield(looking)
        return found if documents else found.model_copy(update={"latest": []})

    async def events(self, *, documents: bool = True) -> AsyncIterator[str]:
        """The same again and again, as server-sent events."""
        ends = time.monotonic() + STREAM_S
        while time.monotonic() < ends:
            yield f"data: {(await self.state(documents=documents)).model_dump_json()}\n\n"
            await asyncio.sleep(EVERY_S)

    def _look(self) -> LiveState:
        flow = self._look_at_flow()
        return LiveState(
            flow=flow,
            kafka=self._look_at_broker(),
            docs_per_s=self._rate(),
            freshness_ms=self._freshness(),
            lag=[
                LaneLag(topic=topic, partition=partition, offsets=int(offsets))
                for (topic, partition), offsets in sorted(self._newest.lag.items())
            ],
            dead_letters={code: int(count) for code, count in sorted(self._newest.dead.items())},
            latest=self._documents(),
        )

    @property
    def _newest(self) -> Totals:
        return self._looks[-1][1] if self._looks else Totals()

    def _look_at_flow(self) -> str | None:
        try:
            found = self._flow()
        except (OSError, ValueError) as error:
            self._looks.clear()
            log.debug("flow away", stage="live", error=str(error))
            return "the flow does not answer"
        if found.topic < self._newest.topic:
            self._looks.clear()  # it was started again, and counts anew
        self._looks.append((time.monotonic(), found))
        return None

    def _look_at_broker(self) -> str | None:
        now = time.monotonic()
        if now >= self._broker_until:
            self._broker_until = now + BROKER_EVERY_S
            self._broker_told = None
            try:
                self._broker()
            except HeadraceError as error:
                self._broker_told = str(error)
        return self._broker_told

    def _rate(self) -> float | None:
        if len(self._looks) < 2:
            return None
        (since, before), (now, newest) = self._looks[0], self._looks[-1]
        return round((newest.topic - before.topic) / (now - since), 1)

    def _freshness(self) -> dict[str, Freshness]:
        found: dict[str, Freshness] = {}
        for sink in self._newest.ages:
            ages = self._newest.ages_since(self._looks[0][1], sink)
            middle, high = percentile(ages, 0.5), percentile(ages, 0.99)
            if middle is not None and high is not None:
                found[sink] = Freshness(p50=round(middle, 1), p99=round(high, 1))
        return found

    def _documents(self) -> list[FreshDocument]:
        try:
            found = self._latest.documents()
        except HeadraceError:
            return []
        return [
            FreshDocument(id=one.id, text=one.text or "", embedded_at_ms=one.embedded_at_ms)
            for one in found
        ]


def live_router(live: Live, table: str) -> APIRouter:
    """The routes that tell of the stream.

    Args:
        live: How it stands.
        table: The table of the last documents: who may not search it does not see them.
    """
    router = guarded(READ, tags=["live"], responses=problems(401, 403, 429))

    @router.get("/v1/live", summary="How the stream stands")
    async def get_live(request: Request) -> LiveState:
        """Rate, freshness, lag, dead letters, and the last documents; `/v1/live/events` goes on."""
        return await live.state(documents=caller_of(request).may_search(table))

    @router.get("/v1/live/events", include_in_schema=False)
    async def get_events(request: Request) -> StreamingResponse:
        """The same once a second, as server-sent events, for some seconds."""
        told = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        events = live.events(documents=caller_of(request).may_search(table))
        return StreamingResponse(events, media_type="text/event-stream", headers=told)

    return router
