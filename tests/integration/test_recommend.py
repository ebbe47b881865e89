"""`flows.recommend` on a real broker, with the real model: exact whatever is killed."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from harness.server import service
from headrace.v1.embedding_pb2 import Embedding
from operators.activity import Fading
from tests.integration.shop import HOUR_MS, Shop, place, source, titles, wanted
from tests.samples import until

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from harness.broker import Broker

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

FADING = Fading(24 * HOUR_MS, 50)


def stir(shop: Shop, chance: random.Random, count: int, now: int) -> None:
    """Views and stocks of every kind: late, double, under other keys, bad."""
    for _ in range(count):
        user, number = f"u{chance.randrange(12)}", chance.randrange(20)
        at = now - chance.randrange(48 * HOUR_MS)
        title = f"{['chair', 'desk', 'lamp'][number % 3]} number {number}"
        kind = chance.random()
        if kind < 0.1:
            shop.stock(f"p{number}", at, chance.randrange(3))
        elif kind < 0.15:
            shop.view(user, f"p{number}", title, at, key=None)
        elif kind < 0.2:
            shop.write("views", user.encode(), b"{no json")
        else:
            shop.view(user, f"p{number}", title, at)
            if kind > 0.9:
                shop.view(user, f"p{number}", title, at)
        time.sleep(0.005)


def test_exact_whatever_is_killed(broker: Broker, tmp_path: Path) -> None:
    """Killed again and again, each view has one outcome on each topic, and both tables are exact.

    What a bad record becomes, one under another key, and a double one, is counted too.
    """
    chance = random.Random(21)  # noqa: S311 - not for secrets
    now = time.time_ns() // 1_000_000
    with Shop(broker, tmp_path, workers=2) as shop:
        for kill in range(4):
            stir(shop, chance, 150, now)
            shop.producer.flush(30)
            until(lambda: bool(shop.flow.writers), 60)
            if kill % 2:
                time.sleep(chance.random())
                shop.flow.kill()
            else:
                shop.flow.kill_writer()
                until(lambda: not shop.flow.alive, 60)
                shop.flow.kill()
            shop.flow.start()
        stir(shop, chance, 50, now)
        shop.settle()
    vectors = titles(shop)
    asked = wanted(shop, vectors.__getitem__, FADING)
    check_topics(shop, asked.outcomes, asked.copies, asked.dead)
    users = shop.rows("users")
    assert users.keys() == asked.users.keys()
    for user, state in asked.users.items():
        assert np.allclose(users[user]["vector"], state.total / state.norm, atol=1e-4)
    newest = {m.key(): Embedding.FromString(m.value() or b"") for m in shop.read("users")}
    for key, made in newest.items():
        held = np.asarray(users[(key or b"").decode()]["vector"], np.float32)
        assert np.allclose(np.frombuffer(made.vector, np.float32), held, atol=1e-4)
    products = shop.rows("products")
    assert products.keys() == asked.products.keys()
    for product, told in asked.products.items():
        row = products[product]
        assert row["title"] == told.get("title")
        assert row["deleted"] == ("title" not in told)
        assert row["stock_time"] == told.get("stock_time")
        assert row["quantity"] == told.get("quantity")
        if "heat" in told:
            assert row["heat"] == pytest.approx(told["heat"], abs=1e-6)
            assert np.allclose(row["vector"], vectors[told["title"]], atol=1e-3)


def check_topics(shop: Shop, outcomes: set[str], copies: set[str], dead: set[str]) -> None:
    """Each record has exactly one outcome on each topic that it has one on, in order."""
    assert outcomes
    assert copies
    assert dead
    for topic in ("products", "users"):
        counts = Counter(source(message) for message in shop.read(topic))
        assert counts.keys() == outcomes
        assert set(counts.values()) == {1}
    assert Counter(map(source, shop.read("dead"))) == Counter(dead)
    views = shop.read("views")
    again = [message for message in views if message.headers()]
    assert Counter(map(source, again)) == Counter(copies)
    assert {place(message) for message in again} <= outcomes
    orders: dict[bytes | None, list[tuple[str, int]]] = {}
    for message in shop.read("users"):
        lane, _, offset = source(message).rpartition("/")
        orders.setdefault(message.key(), []).append((lane, int(offset)))
    for key, order in orders.items():
        assert order == sorted(order), key


def recommended(client: httpx.Client, user: str, **asked: str | int) -> list[dict[str, object]]:
    """What is recommended to a user."""
    answer = client.get(f"/v1/users/{user}/recommendations", params=asked)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, object]] = answer.json()["items"]
    return items


def test_over_http(broker: Broker, tmp_path: Path) -> None:
    """Views over HTTP bring products near to them, in stock, with the view that is the reason."""
    now = time.time_ns() // 1_000_000
    chair = "Ergonomic Office Chair"
    with Shop(broker, tmp_path) as shop, service(tmp_path, shop.environment) as client:

        def post(user: str, product: str, title: str, **more: str | bool) -> None:
            body = {"user_id": user, "product_id": product, "title": title, "timestamp": now}
            assert client.post("/view", json={**body, **more}).status_code == 202

        post("u123", "42", chair)
        post("u9", "7", "Swivel Chair for the Desk", category="seats")
        post("u9", "8", "Cast Iron Frying Pan", category="kitchen")
        post("u8", "8", "Cast Iron Frying Pan", category="kitchen")
        post("u7", "9", "Office Chair with Headrest", category="seats")
        stock = {"in_stock": False, "quantity": 0}
        answer = client.put("/v1/products/9/inventory", json=stock)
        assert answer.status_code == 202
        shop.settle()
        near = recommended(client, "u123")
        assert [item["product_id"] for item in near] == ["7", "8"]
        assert [item["because"] for item in near] == ["42", "42"]
        assert near[0]["title"] == "Swivel Chair for the Desk"
        kitchen = recommended(client, "u123", filter="category = 'kitchen'", k=1)
        assert [item["product_id"] for item in kitchen] == ["8"]
        popular = recommended(client, "nobody")
        assert popular[0]["product_id"] == "8"
        assert popular[0]["because"] is None
        assert popular[0]["score"] == pytest.approx(2.0, abs=0.1)
        assert "9" not in {item["product_id"] for item in popular}
        answer = client.put("/v1/products/9/inventory", json={"in_stock": True, "quantity": 2})
        assert answer.status_code == 202
        shop.settle()
        assert recommended(client, "u123", k=1)[0]["product_id"] == "9"
        wrong = client.get("/v1/users/u123/recommendations", params={"filter": "nothing = 1"})
        assert wrong.status_code == 422
