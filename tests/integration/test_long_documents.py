"""Long documents end to end: cut at headings, titled, embedded again only where they changed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

import httpx
import numpy as np
import pytest

from flows.access import encoder_of
from flows.settings import Settings
from harness.process import HOST, free_port
from operators.encoding import Prefixed
from sinks.search import Query, TableReader, find
from sinks.store import TableStore
from tests.integration.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from harness.broker import Broker
    from operators.model import Encoder

pytestmark = pytest.mark.kafka

SECTIONS: Final = 20
SPLIT: Final = {
    "max_chunks": 60,
    "split": "markdown",
    "chunk_prefix": "title",
    "max_tokens": 128,
    # A bundle of its own, for which `auto` would measure every runtime first.
    "runtime": "onnxruntime",
    "precision": "fp32",
}


class Document:
    """A document of sections, some of them with other letters than ASCII."""

    def __init__(self, name: str) -> None:
        self.title = f"Handbuch {name}"
        self.sections = [
            f"## {name} {n}: Überschrift\n\n" + f"Abschnitt {n} von {name}, 漢字 and 🚢 {n}. " * 4
            for n in range(SECTIONS)
        ]

    @property
    def text(self) -> str:
        """All of it."""
        return "\n\n".join(self.sections)


class Meter:
    """What a flow's process has done since it was started."""

    def __init__(self, address: str) -> None:
        self._url = f"http://{address}/metrics"
        self._before: dict[str, float] = {}

    def __call__(self) -> tuple[int, int]:
        """Tokens that went into the model since the last look, and chunks used again."""
        return self._since("tokens"), self._since("chunks_reused")

    def restarted(self) -> None:
        """The counts begin anew."""
        self._before.clear()

    def _since(self, name: str) -> int:
        lines = httpx.get(self._url).text.splitlines()
        prefix = f"headrace_{name}_total "
        value = float(next(line for line in lines if line.startswith(prefix)).split()[1])
        before, self._before[name] = self._before.get(name, 0.0), value
        return round(value - before)


def checked(pipeline: Pipeline, encoder: Encoder, documents: Mapping[str, Document]) -> None:
    """The table has what embedding each document afresh gives, chunk for chunk."""
    rows = pipeline.table().to_lance().to_table(filter="NOT deleted").to_pylist()
    held: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: int(row["chunk"])):
        held.setdefault(row["id"], []).append(row)
    assert held.keys() == documents.keys()
    for name, document in documents.items():
        text = document.text
        [wanted] = encoder.encode([Prefixed(document.title, text)])
        own = held[name]
        assert [row["chunk"] for row in own] == list(range(len(wanted.spans)))
        assert tuple((row["chunk_start"], row["chunk_end"]) for row in own) == wanted.spans
        pieces = [text, *(text[slice(*span)] for span in wanted.spans[1:])]
        assert [row["text"] for row in own] == pieces
        assert own[0]["tokens"] == wanted.tokens
        vectors = np.array([row["vector"] for row in own])
        np.testing.assert_allclose(vectors, wanted.vectors, atol=1e-4)


def test_only_what_changed_is_embedded(broker: Broker, tmp_path: Path) -> None:
    """Edits cost their sections, other metadata nothing, a title all; also after `kill -9`."""
    address = f"{HOST}:{free_port()}"
    given = {f"HEADRACE_MODEL__{name.upper()}": str(value) for name, value in SPLIT.items()}
    settings = {**given, "HEADRACE_METRICS__ADDRESS": address}
    encoder = encoder_of(Settings.model_validate({"model": SPLIT}))
    documents = {f"d{n}": Document(f"d{n}") for n in range(3)}
    meter = Meter(address)
    with Pipeline(broker, tmp_path, partitions=1, settings=settings) as pipeline:

        def put(name: str, **further: object) -> tuple[int, int]:
            document = documents[name]
            pipeline.put(name, document.text, metadata={"title": document.title, **further})
            pipeline.settle()
            return meter()

        whole, _ = put("d0")
        chunks = len(pipeline.table().to_lance().to_table(filter="id = 'd0'"))
        assert chunks >= SECTIONS
        put("d1")
        put("d2")
        documents["d0"].sections[7] += "Und noch ein Satz."
        tokens, reused = put("d0")
        assert 0 < tokens < whole / 10
        assert reused >= chunks - 2
        assert put("d0", stock=3) == (0, 0)
        documents["d0"].title = "Anleitung"
        pipeline.put("d0", metadata={"title": "Anleitung"})
        pipeline.settle()
        tokens, reused = meter()
        assert (tokens > whole / 2, reused) == (True, 0)
        pipeline.flow.kill()
        pipeline.flow.start()
        meter.restarted()
        documents["d1"].sections[3] = "## Neu\n\nGanz anders als vorher."
        tokens, reused = put("d1", stock=5)
        assert 0 < tokens < whole / 10
        assert reused >= chunks - 2
        checked(pipeline, encoder, documents)
        assert len({o.place for o in pipeline.outputs()}) == len(pipeline.outputs()) == 7
        store = TableStore(str(tmp_path / "lancedb"), "documents", None, "", "")  # type: ignore[arg-type]
        query = Query(3, vector=encoder.encode_query("Anleitung d0 9: Abschnitt 9 von d0"))
        items = find(TableReader(store).latest(), query, ())
        assert sorted(item.id for item in items) == ["d0", "d1", "d2"]
        assert items[0].text == documents["d0"].text
        chunk = items[0].chunk
        assert items[0].text[chunk.start : chunk.end].strip() == chunk.text.strip()


def test_kills_leave_the_table_that_embedding_afresh_gives(broker: Broker, tmp_path: Path) -> None:
    """Edits, titles and deletions at random, with `kill -9` between: table and topic are exact."""
    given = {f"HEADRACE_MODEL__{name.upper()}": str(value) for name, value in SPLIT.items()}
    encoder = encoder_of(Settings.model_validate({"model": SPLIT}))
    chance = random.Random(7)  # noqa: S311 - the same steps each time
    documents = {f"d{n}": Document(f"d{n}") for n in range(5)}
    kept: dict[str, Document] = {}
    records = 0
    with Pipeline(broker, tmp_path, partitions=2, settings=given) as pipeline:
        for _ in range(3):
            for _ in range(12):
                name = chance.choice(sorted(documents))
                document, step = documents[name], chance.random()
                if step < 0.1:
                    pipeline.delete(name)
                    kept.pop(name, None)
                elif step < 0.3 and name in kept:
                    document.title = f"Title {records}"
                    pipeline.put(name, metadata={"title": document.title})
                else:
                    document.sections[chance.randrange(SECTIONS)] += f"Satz {records}."
                    pipeline.put(name, document.text, metadata={"title": document.title})
                    kept[name] = document
                records += 1
            pipeline.producer.flush(10)
            behind = pipeline.progress()["table"]
            pipeline.wait(lambda behind=behind: pipeline.progress()["table"] > behind)  # type: ignore[misc]
            pipeline.flow.kill()
            pipeline.flow.start()
        pipeline.settle()
        outputs = pipeline.outputs()
        checked(pipeline, encoder, kept)
    assert len({o.place for o in outputs}) == len(outputs) == records
    assert {o.outcome for o in outputs} == {"embedding", "tombstone"}
