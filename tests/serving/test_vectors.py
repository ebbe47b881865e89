"""Query vectors: shared, remembered, and failing for those alone who ask."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from serving.vectors import MOST_TOGETHER, QueryVectors
from telemetry.http import HttpMetrics
from tests.serving.services import FakeModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class SlowModel(FakeModel):
    """Waits before its first call until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def encode_queries(self, texts: list[str]) -> NDArray[np.float32]:
        """Float32 [texts, dimension]."""
        assert self.go.wait(10)
        return super().encode_queries(texts)


def vectors_of(model: FakeModel, entries: int = 100) -> QueryVectors:
    """Query vectors by a model."""
    return QueryVectors(lambda texts: model.encode_queries(list(texts)), entries, HttpMetrics())


def test_together() -> None:
    """Queries that come while the model works share its next call; each gets its own vector."""
    model = SlowModel()

    async def work() -> list[NDArray[np.float32]]:
        vectors = vectors_of(model)
        queries = [f"q{i % 40}" for i in range(80)]
        asked = [asyncio.create_task(vectors.of(query)) for query in queries]
        await asyncio.sleep(0.1)
        model.go.set()
        found = await asyncio.gather(*asked)
        vectors.close()
        return found

    found = asyncio.run(work())
    plain = FakeModel()
    for number, vector in enumerate(found):
        assert np.array_equal(vector, plain.encode_queries([f"q{number % 40}"])[0])
    assert sum(map(len, model.calls)) == 40
    assert len(model.calls) <= 3
    assert max(map(len, model.calls)) <= MOST_TOGETHER


def test_remembered() -> None:
    """A query that was asked lately costs no call; the one asked longest ago is forgotten."""
    model = FakeModel()

    async def work() -> None:
        vectors = vectors_of(model, entries=2)
        for query in ("a", "b", "a", "c", "a", "b"):
            await vectors.of(query)
        vectors.close()

    asyncio.run(work())
    assert model.calls == [["a"], ["b"], ["c"], ["b"]]


def test_nothing_remembered() -> None:
    """With no entries each query is embedded."""
    model = FakeModel()

    async def work() -> None:
        vectors = vectors_of(model, entries=0)
        for _ in range(3):
            await vectors.of("a")
        vectors.close()

    asyncio.run(work())
    assert len(model.calls) == 3


def test_failure() -> None:
    """Who asked is told that the model failed; the next query is embedded."""
    fails = True
    model = FakeModel()

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        if fails:
            raise RuntimeError("out of memory")
        return model.encode_queries(list(texts))

    async def work() -> None:
        nonlocal fails
        vectors = QueryVectors(encode, 10, HttpMetrics())
        with pytest.raises(RuntimeError, match="out of memory"):
            await vectors.of("a")
        fails = False
        assert (await vectors.of("a")).shape == (8,)
        vectors.close()

    asyncio.run(work())


def test_gone() -> None:
    """One who goes away takes nothing from another who waits for the same vector."""
    model = SlowModel()

    async def work() -> None:
        vectors = vectors_of(model)
        first, second = (asyncio.create_task(vectors.of("a")) for _ in range(2))
        await asyncio.sleep(0.05)
        first.cancel()
        model.go.set()
        assert (await second).shape == (8,)
        vectors.close()

    asyncio.run(work())
