from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery import health
from recovery.errors import RecoveryError
from recovery.health import LOOK_S, NO_LANES_S, UNSEEN_S, FlowHealth
from recovery.progress import Board
from recovery.watchdog import Watchdog
from telemetry.metrics import Metrics
from tests.samples import Clock, Log, until

LANE = "documents/000000"
OTHER = "documents/000001"


class Flow:
    """Lanes and sinks, and the health of them."""

    def __init__(self, board: Board | None = None, limit_s: float = 10.0, **given: Any) -> None:
        self.clock = Clock()
        self.board = board or Board()
        self.metrics = Metrics()
        self.health = FlowHealth(
            self.board,
            given.get("here", self.board.sinks),
            limit_s,
            "kafka:9092",
            Watchdog(),
            self.metrics,
            self.clock,
        )

    def open(self, *lanes: str) -> None:
        """Start lanes, with both sinks open and nothing to do."""
        for lane in lanes:
            self.health.starts(lane)
            for sink in self.board.sinks:
                self.board.own(sink, lane)
                self.board.post(sink, lane, 0)
            self.health.seen(lane, 0, 0)
        self.health.look()

    def goes_on(self, seconds: float, **lanes: tuple[int, int]) -> None:
        """So many seconds pass; workers see so many offsets to read, records in flight."""
        for _ in range(round(seconds / LOOK_S)):
            self.clock.now += LOOK_S
            for lane, (readable, in_flight) in lanes.items():
                self.health.seen({"lane": LANE, "other": OTHER}[lane], readable, in_flight)
            self.health.look()

    def is_stalled(self) -> bool:
        """By probe and by gauge, which agree."""
        told = not self.health.live().well
        assert self.metrics.registry.get_sample_value("headrace_stalled") == told
        return told


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Log:
    """What is logged."""
    log = Log()
    monkeypatch.setattr(health, "log", log)
    return log


def test_records_that_reach_no_sink_are_a_stall(logged: Log) -> None:
    """It is told once, with the lane and the sink that is behind, and so is its end."""
    flow = Flow()
    flow.open(LANE)
    flow.board.post("topic", LANE, 5)
    flow.goes_on(10, lane=(0, 5))
    assert not flow.is_stalled()
    flow.goes_on(2, lane=(0, 5))
    assert flow.is_stalled()
    told = flow.health.live().told
    assert told["status"] == "stalled"
    assert (told["lanes"], told["readable"], told["in_flight"]) == (1, 0, 5)
    assert str(told["reason"]).endswith("last is table")
    flow.goes_on(20, lane=(0, 5))
    flow.board.post("table", LANE, 1)
    flow.goes_on(1, lane=(0, 4))
    assert not flow.is_stalled()
    assert [event for event, _ in logged.events] == ["flow stalled", "flow moves again"]
    assert LANE in logged.events[0][1]["reason"]


def test_a_backlog_that_nobody_reads_is_a_stall() -> None:
    """Nothing need be in flight: what could be read counts too."""
    flow = Flow()
    flow.open(LANE)
    flow.goes_on(12, lane=(7, 0))
    assert flow.is_stalled()


def test_nothing_to_do_is_none() -> None:
    """A flow may be idle for as long as it likes."""
    flow = Flow()
    flow.open(LANE, OTHER)
    flow.goes_on(1000, lane=(0, 0), other=(0, 0))
    assert not flow.is_stalled()


def test_one_lane_that_moves_is_enough() -> None:
    """A large backlog is worked off in turns; a flow whose sinks move is not stalled."""
    flow = Flow()
    flow.open(LANE, OTHER)
    for offset in range(1, 40):
        for sink in flow.board.sinks:
            flow.board.post(sink, OTHER, offset)
        flow.goes_on(1, lane=(9, 9), other=(9, 9))
    assert not flow.is_stalled()


def test_a_worker_that_hangs_is_a_stall() -> None:
    """Whether there is something to do is not known then, and that is told."""
    flow = Flow()
    flow.open(LANE)
    flow.goes_on(UNSEEN_S + 9)
    assert not flow.is_stalled()
    flow.goes_on(5)
    assert flow.is_stalled()
    assert str(flow.health.live().told["reason"]).startswith(f"no worker has read {LANE}")


def test_a_broker_that_is_away_is_none() -> None:
    """That is not the flow's fault: it lives, but is not ready; the time counts from its return."""
    flow = Flow()
    flow.open(LANE)
    flow.health.broker_away(away=True)
    flow.goes_on(60, lane=(3, 3))
    assert not flow.is_stalled()
    ready = flow.health.ready()
    assert (ready.well, ready.told["reason"]) == (
        False,
        "kafka.bootstrap_servers: kafka:9092: away",
    )
    flow.health.broker_away(away=False)
    assert flow.health.ready().well
    flow.goes_on(9, lane=(3, 3))
    assert not flow.is_stalled()
    flow.goes_on(5, lane=(3, 3))
    assert flow.is_stalled()


def test_time_in_which_the_process_was_stopped_does_not_count() -> None:
    """A process that is paused and goes on is given its time again."""
    flow = Flow()
    flow.open(LANE)
    flow.goes_on(1, lane=(3, 3))
    flow.clock.now += 3600
    flow.goes_on(2, lane=(3, 3))
    assert not flow.is_stalled()


def test_ready_once_lanes_and_sinks_are() -> None:
    """Each step on the way is named; ending, it is ready no more."""
    flow = Flow()
    reasons = []

    def step() -> None:
        reasons.append(flow.health.ready().told.get("reason"))

    step()
    flow.health.starts(LANE)
    step()
    flow.health.seen(LANE, 0, 0)
    step()
    flow.board.own("topic", LANE)
    step()
    flow.board.own("table", LANE)
    step()
    flow.health.ends(LANE)
    step()
    assert reasons == [
        "no lane has started",
        f"{LANE} is starting",
        f"the topic is not open for {LANE}",
        f"the table is not open for {LANE}",
        None,
        "the flow is ending",
    ]
    assert flow.health.live().well


def test_a_start_is_no_stall() -> None:
    """Opening a large table takes its time, while a lane has a backlog."""
    flow = Flow()
    flow.health.starts(LANE)
    flow.goes_on(100, lane=(5, 5))
    assert not flow.is_stalled()


def test_a_process_without_lanes_is_ready_after_a_while() -> None:
    """More workers than partitions: one stands by, and a rollout does not wait for it."""
    flow = Flow()
    flow.clock.now += 100  # records that may have ended the one before it are being tried
    assert not flow.health.ready().well
    flow.health.begins()
    assert not flow.health.ready().well
    flow.clock.now += NO_LANES_S + 1
    assert flow.health.ready().well


def test_a_sink_in_another_process_is_asked() -> None:
    """What no post tells is read, so records that are long in its table are no stall."""
    asked: list[Any] = []

    def table(lanes: Any) -> dict[str, int]:
        asked.append(sorted(lanes))
        return {LANE: 5}

    flow = Flow(Board({"table": table}), here=("topic",))
    flow.health.starts(LANE)
    flow.board.own("topic", LANE)
    flow.board.post("topic", LANE, 5)
    flow.board.post("table", LANE, 0)
    assert not flow.health.ready().well
    flow.health.seen(LANE, 0, 5)
    assert flow.health.ready().well
    flow.goes_on(9, lane=(0, 5))
    assert asked == [[LANE]]
    assert flow.board.written(LANE) == 5
    assert not flow.is_stalled()


def test_a_sink_that_cannot_be_asked_does_not_move() -> None:
    """An error of the other process's table is no news, and hides no stall."""

    def table(_: Any) -> dict[str, int]:
        raise RecoveryError("table.uri: away")

    flow = Flow(Board({"table": table}), here=("topic",))
    flow.health.starts(LANE)
    flow.board.own("topic", LANE)
    flow.health.seen(LANE, 0, 5)
    flow.goes_on(20, lane=(0, 5))
    assert flow.is_stalled()


@given(st.lists(st.sampled_from(["moves", "busy", "idle", "away"]), max_size=60))
def test_a_stall_is_a_row_of_busy_looks(looks: list[str]) -> None:
    """Whatever happens in whatever order: stalled while the last looks all were busy and still."""
    flow = Flow(limit_s=5.0)
    flow.open(LANE)
    still = 0
    for number, look in enumerate(looks, 1):
        if look == "moves":
            for sink in flow.board.sinks:
                flow.board.post(sink, LANE, number)
        flow.health.broker_away(look == "away")
        flow.goes_on(1, lane=(0, 0) if look == "idle" else (4, 4))
        still = still + 1 if look == "busy" else 0
        assert flow.is_stalled() == (still > 5)


def test_its_thread_looks_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to call it, and it ends with the last lane."""
    monkeypatch.setattr(health, "LOOK_S", 0.01)
    flow = Flow()
    flow.open(LANE)
    real = FlowHealth(flow.board, flow.board.sinks, 0.05, "", Watchdog(), flow.metrics)
    real.starts(LANE)
    real.seen(LANE, 1, 0)
    real.watch()
    until(lambda: not real.live().well)
    real.ends(LANE)
    thread = real._thread
    assert thread is not None
    thread.join(5)
    assert not thread.is_alive()


def test_a_schema_registry_that_is_away_is_none() -> None:
    """As little is that the flow's fault: it lives, and is not ready."""
    flow = Flow()
    flow.open(LANE)
    flow.health.registry_away(away=True)
    flow.goes_on(60, lane=(3, 3))
    assert not flow.is_stalled()
    ready = flow.health.ready()
    assert (ready.well, ready.told["reason"]) == (
        False,
        "registry.url: the schema registry is away",
    )
    flow.health.registry_away(away=False)
    assert flow.health.ready().well
    flow.goes_on(14, lane=(3, 3))
    assert flow.is_stalled()
