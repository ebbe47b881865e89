"""From an HTTP write through Kafka, flow and table to an HTTP search, with the real model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from harness.server import service
from tests.integration.pipeline import Pipeline
from tests.samples import until

if TYPE_CHECKING:
    import httpx

    from harness.broker import Broker

pytestmark = pytest.mark.kafka


def search(client: httpx.Client, query: str, after: Any = None, **more: Any) -> list[Any]:
    """What a search finds."""
    asked = {"query": query, **({"after": after} if after else {}), **more}
    answer = client.post("/v1/search", json=asked)
    assert answer.status_code == 200, answer.text
    items: list[Any] = answer.json()["items"]
    return items


def accepted(answer: httpx.Response) -> Any:
    """Where an accepted write stands."""
    assert answer.status_code == 202, answer.text
    return answer.json()


def test_read_your_writes(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What was accepted is found by a search that waits for it: new, changed and deleted."""
    settings = {
        "HEADRACE_TABLE__COLUMNS": '{"price": "float64"}',
        "HEADRACE_SERVE__AFTER_TIMEOUT_S": "20",
    }
    pipeline = Pipeline(broker, tmp_path_factory.mktemp("http"), settings=settings)
    with pipeline, service(pipeline.folder, pipeline.environment) as client:
        until(lambda: client.get("/health/ready").status_code == 200, 60)
        chair = {"text": "a red chair made of beech", "metadata": {"price": 120, "wood": "beech"}}
        accepted(client.put("/v1/documents/lamp", json={"text": "a lamp for reading at night"}))
        after = accepted(client.put("/v1/documents/chair", json=chair))
        [first] = search(client, "something to sit on", after, k=1)
        assert first["id"] == "chair"
        assert first["metadata"] == {"price": 120.0, "wood": "beech"}

        after = accepted(client.put("/v1/documents/chair", json={"metadata": {"price": 99}}))
        [first] = search(client, "something to sit on", after, filter="price < 100")
        assert (first["text"], first["metadata"]) == (chair["text"], {"price": 99.0})

        event = {"user_id": "u1", "text": "asked about a stool of oak", "timestamp": 1700000000}
        after = accepted(client.post("/event", json=event))
        found = search(client, "a stool of oak", after)
        assert found[0]["text"] == event["text"]
        assert found[0]["metadata"] == {"user_id": "u1"}

        def indexed() -> bool:
            asked = {"query": "beech", "mode": "text"}
            return client.post("/v1/search", json=asked).status_code == 200

        until(indexed, 30)
        assert [item["id"] for item in search(client, "beech", mode="text")] == ["chair"]
        assert search(client, "beech", mode="hybrid")[0]["id"] == "chair"

        after = accepted(client.delete("/v1/documents/chair"))
        for mode in ("vector", "text", "hybrid"):
            found = search(client, "beech", after, mode=mode)
            assert "chair" not in {item["id"] for item in found}
