"""How a flow tells that it moves, that it stands still, and that it is not its own fault."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness.broker import Broker
from harness.process import HOST, free_port
from tests.integration.pipeline import Pipeline

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kafka

STALLED_S = 4
START_S = 150.0


class Watched(Pipeline):
    """A flow whose metrics and health are served."""

    def __post_init__(self) -> None:
        self.port = free_port()
        self.settings = {
            "HEADRACE_METRICS__ADDRESS": f"{HOST}:{self.port}",
            "HEADRACE_METRICS__STALLED_S": str(STALLED_S),
            **self.settings,
        }
        super().__post_init__()

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; no status while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, "{}"

    def health(self, probe: str) -> tuple[int, dict[str, Any]]:
        """Status and what is told."""
        status, body = self.get(f"/health/{probe}")
        return status, json.loads(body)

    def samples(self) -> dict[tuple[str, ...], float]:
        """All metrics, by name and its labels' values, in the order of their names."""
        return {
            (sample.name.removeprefix("headrace_"), *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(self.get("/metrics")[1])
            for sample in family.samples
        }

    def has_logged(self, event: str) -> int:
        """How many lines of the log tell of an event."""
        return self.flow.log_text().count(f'"event": "{event}"')


def test_a_stopped_table_is_a_stall_until_it_goes_on(broker: Broker, tmp_path: Path) -> None:
    """Metrics are all there; a table writer that hangs is told by probe, gauge and log, once."""
    began = time.time()
    with Watched(broker, tmp_path) as pipeline:
        pipeline.wait(lambda: pipeline.health("ready")[0] == 200, START_S)
        pipeline.put("first", "a document")
        pipeline.settle()
        assert pipeline.health("live")[0] == 200
        _check_metrics(pipeline, began)
        [writer] = pipeline.flow.writers
        os.kill(writer, signal.SIGSTOP)
        pipeline.put("second", "another document")
        pipeline.producer.flush(30)
        pipeline.wait(lambda: pipeline.health("live")[0] == 503)
        told = pipeline.health("live")[1]
        assert (told["status"], told["in_flight"]) == ("stalled", 1)
        assert told["no_progress_s"] >= STALLED_S
        assert told["reason"].endswith("last is table")
        assert pipeline.samples()["stalled",] == 1
        assert pipeline.health("ready")[0] == 200
        os.kill(writer, signal.SIGCONT)
        pipeline.wait(lambda: pipeline.health("live")[0] == 200)
        assert pipeline.samples()["stalled",] == 0
        pipeline.settle()
        assert set(pipeline.rows()) == {"first", "second"}
        assert pipeline.flow.terminate() == [0]
    assert pipeline.has_logged("flow stalled") == pipeline.has_logged("flow moves again") == 1


def _check_metrics(pipeline: Watched, began: float) -> None:
    """Each of the clients' and the process's metrics has a value that can be."""
    servers = pipeline.broker.bootstrap_servers
    told = {("broker_rtt_ms", servers), ("send_queue_records",)}
    told |= {("fetch_queue_records", number, pipeline.topics.source) for number in "01"}
    pipeline.wait(lambda: told <= set(pipeline.samples()))
    found = pipeline.samples()
    assert 0 < found["broker_rtt_ms", servers] < 10_000
    assert {key[1] for key in found if key[0] == "broker_rtt_ms"} == {servers}
    for partition in ("0", "1"):
        assert found["fetch_queue_records", partition, pipeline.topics.source] == 0
        assert found["fetch_queue_bytes", partition, pipeline.topics.source] == 0
    assert found["send_queue_records",] == 0
    [worker], [writer] = pipeline.flow.pids, pipeline.flow.writers
    for name, pid in (("worker", worker), ("table_writer", writer)):
        seen = psutil.Process(pid).memory_info().rss
        assert found["resident_memory_bytes", name] == pytest.approx(seen, rel=0.5)
    assert began - 1 < found["start_time_seconds",] < time.time()
    [build] = [key for key in found if key[0] == "build_info"]
    assert all(build)
    assert len(build) == 5


def test_a_backlog_behind_a_stopped_table(broker: Broker, tmp_path: Path) -> None:
    """What the budget keeps from being read is told, too."""
    settings = {"HEADRACE_SOURCE__MAX_IN_FLIGHT": "4"}
    with Watched(broker, tmp_path, partitions=1, settings=settings) as pipeline:
        pipeline.wait(lambda: pipeline.health("ready")[0] == 200, START_S)
        [writer] = pipeline.flow.writers
        os.kill(writer, signal.SIGSTOP)
        for number in range(3000):
            pipeline.put(f"{number}", "a document")
        pipeline.producer.flush(30)
        lane = ("0", pipeline.topics.source)
        pipeline.wait(lambda: pipeline.health("live")[0] == 503)
        pipeline.wait(lambda: pipeline.health("live")[1]["readable"] > 2000)
        found = pipeline.samples()
        assert found["consumer_lag", *lane] > 2000
        assert found["in_flight_records", *lane] == 4
        pipeline.flow.kill()


@pytest.mark.timeout(240)
def test_a_broker_that_is_away_is_not_the_flows_fault(tmp_path: Path) -> None:
    """The flow lives on, is not ready, and names the broker; then all is well again."""
    with (
        Broker(folder=tmp_path / "kafka") as broker,
        Watched(broker, tmp_path, partitions=1) as pipeline,
    ):
        pipeline.wait(lambda: pipeline.health("ready")[0] == 200, START_S)
        pipeline.put("first", "a document")
        pipeline.settle()
        broker.pause()
        pipeline.wait(lambda: pipeline.health("ready")[0] == 503)
        assert broker.bootstrap_servers in pipeline.health("ready")[1]["reason"]
        assert pipeline.health("live")[0] == 200
        broker.resume()
        pipeline.wait(lambda: pipeline.health("ready")[0] == 200)
        assert pipeline.health("live")[0] == 200
    assert pipeline.has_logged("flow stalled") == 0
