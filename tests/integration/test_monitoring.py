"""A real Prometheus reads a running flow and its services, as dashboard and rules do."""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
import yaml

from harness.process import HOST, Child, free_port, tail
from harness.server import service
from tests.deploy.files import (
    PENDING,
    PROMETHEUS,
    Query,
    alerts,
    annotation_queries,
    dashboard,
    documents,
    panel_queries,
    records,
)
from tests.integration.pipeline import Pipeline
from tests.samples import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.broker import Broker

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed"),
]

WAIT_S: Final = 120.0

GRAFANA: Final = {
    "$__rate_interval": "30s",
    "$job": ".*",
    "$instance": ".*",
    "$services": ".*",
    "$pipeline": ".*",
}
"""What Grafana puts in the place of its variables."""

VIEW: Final = {"user_id": "u", "product_id": "p", "title": "A chair", "timestamp": 1_700_000_000}
"""Of it there is no topic."""


class Prometheus:
    """A running Prometheus, asked over HTTP."""

    def __init__(self, child: Child, client: httpx.Client) -> None:
        self._child = child
        self._client = client

    def ask(self, path: str, **parameters: str) -> Any:
        """What an API answers; fails on an error, with what it is."""
        answer = self._client.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, f"{parameters}: {answer.text}"
        return answer.json()["data"]

    def answers(self) -> bool:
        """Whether it is up."""
        assert self._child.alive, tail(self._child.log)
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def has_data(self, query: Query) -> bool:
        """Whether a query gives a number, after Grafana's variables were put in."""
        text = query.text
        for name, value in GRAFANA.items():
            text = text.replace(name, value)
        found = self.ask("query", query=text)["result"]
        return any(math.isfinite(float(one["value"][1])) for one in found)

    def firing(self) -> set[str]:
        """The names of the alerts that are raised."""
        raised = self.ask("alerts")["alerts"]
        return {one["labels"]["alertname"] for one in raised if one["state"] == "firing"}


@contextmanager
def prometheus(folder: Path, targets: dict[str, str]) -> Iterator[Prometheus]:
    """Compose's Prometheus, but for its targets, by job, and for its pace."""
    [config] = documents(PROMETHEUS / "prometheus.yml")
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS / name) for name in config["rule_files"]]
    for job in config["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    address = f"{HOST}:{free_port()}"
    command = ["prometheus", f"--config.file={path}", f"--web.listen-address={address}"]
    command += [f"--storage.tsdb.path={folder / 'prometheus'}"]
    with (
        Child(command, log=folder / "prometheus.log") as child,
        httpx.Client(base_url=f"http://{address}", timeout=30) as client,
    ):
        running = Prometheus(child, client)
        until(running.answers, 60)
        yield running


def work(pipeline: Pipeline, client: httpx.Client, number: int) -> None:
    """Something of everything that is counted."""
    for index in range(20):
        pipeline.put(f"{number}-{index}", f"document {number} {index}")
        pipeline.put(f"{number}-{index}-again", f"document {number} {index}")
    pipeline.put(f"{number}-long", "word " * 2000)
    pipeline.put_raw(b"bad", b"not json")
    assert client.put(f"/v1/documents/{number}", json={"text": "over HTTP"}).status_code == 202
    assert client.post("/view", json=VIEW).status_code == 503
    for _ in range(2):
        client.post("/v1/search", json={"query": f"query {number}"}).raise_for_status()
    pipeline.settle()


def variables() -> list[Query]:
    """What fills the dashboard's lists."""
    found = []
    for own in dashboard()["templating"]["list"]:
        if own["type"] == "query":
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", own["query"]["query"])
            assert asked is not None
            found.append(Query(own["name"], f"group by ({asked[2]}) ({asked[1]})"))
    return found


def test_every_query_has_data(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Panels, variables and recorded series show something of a flow that works."""
    port = free_port()
    settings = {
        "HEADRACE_METRICS__ADDRESS": f"{HOST}:{port}",
        "HEADRACE_RECOMMEND__VIEWS_TOPIC": "no-such-topic",
        "HEADRACE_SERVE__DELIVERY_TIMEOUT_S": "2",
    }
    pipeline = Pipeline(broker, tmp_path_factory.mktemp("monitoring"), settings=settings)
    queries = [*panel_queries(), *variables(), *records().values()]
    recorded = [Query(name, name) for name, made in records().items() if not made.pending]
    ready = [query for query in queries if not query.pending] + recorded
    with pipeline, service(pipeline.folder, pipeline.environment) as client:
        targets = {
            "headrace": f"{HOST}:{port}",
            "headrace-serve": f"{client.base_url.host}:{client.base_url.port}",
        }
        with prometheus(pipeline.folder, targets) as asked:
            until(lambda: client.get("/health/ready").status_code == 200, 60)
            missing, deadline, number = ready, time.monotonic() + WAIT_S, 0
            # Rates need a value before and one after.
            while missing and time.monotonic() < deadline:
                work(pipeline, client, number)
                time.sleep(1.5)
                missing = [query for query in missing if not asked.has_data(query)]
                number += 1
            assert not missing, pipeline.flow.log_text()[-2000:]
            check_alerts(asked)
            check_pending(asked, queries)


def check_alerts(asked: Prometheus) -> None:
    """All alerts can be reckoned; of a flow that works, only what was provoked is raised."""
    until(lambda: "HeadraceDeadLetters" in asked.firing(), 30)
    assert asked.firing() == {"HeadraceDeadLetters"}
    groups = asked.ask("rules")["groups"]
    judged = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert set(judged) == set(alerts()) | set(records())
    assert {rule["health"] for rule in judged.values()} == {"ok"}, json.dumps(judged)
    [marked] = [query for query in annotation_queries() if "ALERTS" in query.text]
    assert asked.has_data(marked)


def check_pending(asked: Prometheus, queries: list[Query]) -> None:
    """What the flow does not have yet has no data; or else it is to be taken off the list."""
    for query in queries:
        if query.pending:
            assert not asked.has_data(query), f"tests/deploy/files.py, PENDING: {query.place}"
    known = asked.ask("label/__name__/values")
    assert not PENDING & set(known), "tests/deploy/files.py: these are no longer pending"
    for query in annotation_queries():
        asked.has_data(query)
