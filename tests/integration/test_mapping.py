"""A topic whose records are nobody's but its own, through the real flow."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from harness.texts import docstrings
from tests.integration.pipeline import Pipeline
from tests.integration.test_refusals import refusal

if TYPE_CHECKING:
    from pathlib import Path

    from harness.broker import Broker

pytestmark = pytest.mark.kafka

SETTINGS = {
    "HEADRACE_SOURCE__ID": "key/sku",
    "HEADRACE_SOURCE__TEXT": "{/title}. {/body?}",
    "HEADRACE_SOURCE__METADATA": json.dumps(
        {"brand": "/brand/name", "price": {"at": "/price", "type": "float64"}}
    ),
    "HEADRACE_SOURCE__TIMESTAMP": "/at",
    "HEADRACE_SOURCE__DELETE_WHEN": "status == 'gone'",
    "HEADRACE_SOURCE__FILTER": "lang == 'en'",
    "HEADRACE_SOURCE__MARKUP": "html",
}


def key(number: int) -> bytes:
    """A JSON key."""
    return json.dumps({"shop": 1, "sku": f"s{number}"}).encode()


def product(number: int, text: str, **changed: Any) -> bytes:
    """A record of the shop's own shape."""
    record = {
        "title": f"Product <b>{number}</b>",
        "body": text,
        "brand": {"name": "Holz"},
        "price": f"{number}.50",
        "at": 1_700_000_000 + number,
        "status": "sold",
        "lang": "en",
    }
    return json.dumps(record | changed).encode()


def test_a_topic_of_its_own_shape(broker: Broker, tmp_path: Path) -> None:
    """Each record has the outcome that the mapping says, once, with a kill -9 in between."""
    texts = [found.text for found in docstrings(60)]
    with Pipeline(broker, tmp_path, settings=SETTINGS) as pipeline:
        for number, text in enumerate(texts):
            pipeline.put_raw(key(number), product(number, text))
            pipeline.put_raw(key(number), product(number, text, lang="de"))
            if number == len(texts) // 2:
                pipeline.producer.flush(30)
                pipeline.wait(lambda: pipeline.progress()["topic"] > 0)
                pipeline.flow.kill()
                pipeline.flow.start()
        pipeline.put_raw(key(0), product(0, "", status="gone"))
        pipeline.put_raw(key(1), None)
        pipeline.put_raw(key(2), product(2, "", title=None))
        pipeline.put_raw(key(3), product(3, "", price="dear"))
        pipeline.settle()
        rows, outputs = pipeline.rows(), pipeline.outputs()
    found = sorted(one.outcome for one in outputs)
    assert found == sorted(
        ["embedding"] * len(texts) + ["tombstone"] * 2 + ["no_text", "bad_schema"]
    )
    assert set(rows) == {f"s{number}" for number in range(2, len(texts))}
    row = rows["s2"]
    assert row["text"].startswith("Product 2. ")
    assert (row["price"], json.loads(row["metadata"])) == (2.5, {"brand": "Holz"})
    assert row["event_time"].timestamp() == 1_700_000_002


def test_settings_that_do_not_fit(broker: Broker, tmp_path: Path) -> None:
    """A first start on records that the mapping can't read ends with one line that says why."""
    settings = {"HEADRACE_SOURCE__TEXT": "{/headline}"}
    pipeline = Pipeline(broker, tmp_path, settings=settings)
    for number in range(5):
        pipeline.put_raw(key(number), product(number, "words"))
    pipeline.producer.flush(30)
    code, line = refusal(pipeline.environment)
    assert code == 2
    assert line.startswith("headrace: source.text: none of the 5 newest records fits")
    assert "/headline: nothing is there" in line
