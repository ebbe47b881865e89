"""Where each microsecond of a document goes: `python -m benchmarks.stages [--docs N]`.

Every stage of `flows.embed` is run by itself, on the same documents, with a real broker and a real
table, in batches of two sizes: what a fresh flow has in hand, and what one has that works off a
backlog. What is counted is CPU time, of all threads and of the table's writing process. Beside it
stands what one document alone can't go below by the clock; see `benchmarks.floor`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main
from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from benchmarks.floor import Floor, floor
from benchmarks.texts import gather, take
from benchmarks.usage import cpu_of
from clients.kafka import KafkaConfig
from flows.access import encoder_of, model_source_of
from flows.settings import load
from harness.broker import Broker
from harness.process import ROOT, HarnessError
from harness.workload import Topics, make_topics
from headrace.errors import HeadraceError
from operators.documents import Decoder
from operators.embed import EmbedStep, StateLimits
from operators.encoding import Changed
from operators.model import open_bundle
from operators.records import DocumentBatch, Lane, OutcomeBatch, RecordBatch
from operators.tokenize import Tokenizer
from operators.window import Window, Windows, window
from recovery.progress import Board
from recovery.watchdog import Watchdog
from sinks.maintenance import Upkeep
from sinks.messages import MessageEncoder
from sinks.remote import RemoteWriter
from sinks.rows import table_rows
from sinks.schema import TableSchema
from sinks.store import TableStore
from sinks.topic import LaneWriter, Writing
from sources.lane import LaneReader
from telemetry import logs
from telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from operators.encoding import Encoded, Input
    from operators.model import Encoder

__all__ = ["STAGES", "Stages", "main"]

BATCHES: Final = (8, 64, 256)
"""Documents in a batch."""

STAGES: Final = (
    ("read", "librdkafka hands records over, as columns"),
    ("decode", "JSON to id, text, metadata"),
    ("tokenise", "text to token ids"),
    ("model", "sorting, cutting, inference"),
    ("outcomes", "cache, lane's view, columns"),
    ("dataflow", "Bytewax: four operators, a window"),
    ("codec", "Protobuf"),
    ("transaction", "librdkafka: produce, offsets, commit"),
    ("rows", "winning rows as Arrow"),
    ("merge", "LanceDB, and the pipe to its process"),
)
"""What is measured apart, in the order of the flow."""

_ALONE: Final = 30
"""Documents that go one at a time."""

_TIMEOUT_S: Final = 60.0
_LATEST: Final = ROOT / "build" / "bench" / "stages.json"


@dataclass
class Spent:
    """CPU time that was spent in a stretch of code.

    Attributes:
        seconds: By this process, and by one that works for it.
    """

    seconds: float = 0.0


@contextmanager
def _spent(helper: int | None = None) -> Iterator[Spent]:
    """Measures a stretch of code; `helper` is the pid of a process that works for this one."""
    helpers = [] if helper is None else [helper]
    spent, began, theirs = Spent(), time.process_time(), cpu_of(helpers)
    yield spent
    spent.seconds = time.process_time() - began + cpu_of(helpers) - theirs


class Stages:
    """The stages, each with what it needs.

    Args:
        encoder: The model.
        tokenizer: The same model's, alone.
        broker: Runs.
        folder: For the table.
        texts: One document each, no two alike.
    """

    def __init__(
        self,
        encoder: Encoder,
        tokenizer: Tokenizer,
        broker: Broker,
        folder: Path,
        texts: Sequence[str],
    ) -> None:
        self._encoder = encoder
        self._tokenizer = tokenizer
        self._folder = folder
        self._texts = texts
        self._kafka = KafkaConfig(broker.bootstrap_servers, "stages")
        self._runs = 0

    def measure(self, rows: int) -> dict[str, float]:
        """Microseconds that a document costs in each stage, in batches of so many documents.

        Raises:
            HarnessError: The broker did not answer in time.
        """
        self._runs += 1
        topics = Topics(*(f"{name}-{self._runs}" for name in ("source", "vectors", "dead")))
        make_topics(self._kafka.bootstrap_servers, topics, 1)
        lane = Lane(topics.source, 0)
        self._write(topics.source)
        found: dict[str, float] = {}
        records = self._read(lane, rows, found)
        documents = _decode(records, found)
        outcomes = self._embed(documents, found)
        _flow(outcomes, rows, found)
        self._to_topic(topics, lane, outcomes, found)
        self._to_table(outcomes, found)
        count = len(self._texts)
        return {stage: found[stage] / count * 1e6 for stage, _ in STAGES}

    def floor(self, texts: Sequence[str]) -> Floor:
        """What one of these documents alone can't go below.

        Raises:
            HarnessError: The broker did not answer in time.
        """
        topics = Topics("source-floor", "vectors-floor", "dead-floor")
        make_topics(self._kafka.bootstrap_servers, topics, 1)
        return floor(self._encoder, self._kafka, topics, texts)

    def _write(self, topic: str) -> None:
        producer = Producer({"bootstrap.servers": self._kafka.bootstrap_servers, "linger.ms": 5})
        for number, text in enumerate(self._texts):
            value = json.dumps({"text": text, "metadata": {"number": number}})
            producer.produce(topic, value, f"document-{number}")
        if producer.flush(_TIMEOUT_S):
            raise HarnessError(f"topic {topic}: not written within {_TIMEOUT_S:.0f} s")

    def _read(self, lane: Lane, rows: int, found: dict[str, float]) -> list[RecordBatch]:
        reader = LaneReader(self._kafka, lane)
        batches: list[RecordBatch] = []
        left, deadline = len(self._texts), time.monotonic() + _TIMEOUT_S
        with _spent() as spent:
            reader.start(0)
            while left:
                batch = reader.read(min(rows, left))
                if batch is None:
                    time.sleep(0.002)
                else:
                    batches.append(batch)
                    left -= len(batch)
                if time.monotonic() > deadline:
                    raise HarnessError(f"topic {lane}: not read within {_TIMEOUT_S:.0f} s")
        reader.close()
        found["read"] = spent.seconds
        return batches

    def _embed(
        self, documents: Sequence[DocumentBatch], found: dict[str, float]
    ) -> list[OutcomeBatch]:
        texts = [[text for text in one.texts if text is not None] for one in documents]
        with _spent() as tokenised:
            for some in texts:
                self._tokenizer.encode_batch(some)
        made: dict[Input, Encoded] = {}
        with _spent() as encoded:
            for some in texts:
                made.update(zip(some, self._encoder.encode(some), strict=True))
        step = EmbedStep(
            _Known(made), lambda _: {}, lambda _: -1, StateLimits(10_000, 1 << 26, 1 << 20)
        )
        with _spent() as passed:
            outcomes = [step([batch])[0] for batch in documents]
        found["tokenise"] = tokenised.seconds
        found["model"] = max(0.0, encoded.seconds - tokenised.seconds)
        found["outcomes"] = passed.seconds
        return outcomes

    def _to_topic(
        self,
        topics: Topics,
        lane: Lane,
        outcomes: Sequence[OutcomeBatch],
        found: dict[str, float],
    ) -> None:
        messages = MessageEncoder(
            topics.embeddings,
            topics.dead_letters,
            "float32",
            self._encoder.name,
            self._encoder.fingerprint,
        )
        with _spent() as codec:
            for batch in outcomes:
                for _ in messages.records(batch):
                    pass
        board = Board()
        writing = Writing(
            self._kafka, messages, "lz4", 1_000_000, board, Watchdog(), Metrics(freshness_ms=100)
        )
        writer = LaneWriter(writing, lane, 0.0)
        with _spent() as spent:
            for batch in outcomes:
                writer.write(batch)
                board.wait_for("topic", lane.key, batch.end)
        writer.close()
        found["codec"] = codec.seconds
        found["transaction"] = max(0.0, spent.seconds - codec.seconds)

    def _to_table(self, outcomes: Sequence[OutcomeBatch], found: dict[str, float]) -> None:
        schema = TableSchema(self._encoder.dimension, {}, self._encoder.name)
        store = TableStore(
            str(self._folder / f"lancedb-{self._runs}"),
            "documents",
            schema,
            self._encoder.name,
            self._encoder.fingerprint,
        )
        store.ensure()
        writer = RemoteWriter.open(
            store, Upkeep(index_rows=1_000_000, tombstone_retention_s=3600.0), 1
        )
        with _spent() as made:
            tables = [schema.rows(table_rows([batch])) for batch in outcomes]
        with _spent(writer.pid) as merged:
            for batch, table in zip(outcomes, tables, strict=True):
                writer.commit(table, {batch.lane.key: batch.end})
        writer.close()
        found["rows"], found["merge"] = made.seconds, merged.seconds


def _decode(records: Sequence[RecordBatch], found: dict[str, float]) -> list[DocumentBatch]:
    decoder = Decoder({}, 1_000_000)
    with _spent() as spent:
        documents = [decoder(batch) for batch in records]
    found["decode"] = spent.seconds
    return documents


def _flow(outcomes: Sequence[OutcomeBatch], rows: int, found: dict[str, float]) -> None:
    """What Bytewax costs: the operators of `flows.embed`, with nothing to do in them."""
    with _spent() as empty:
        _run([], rows)
    with _spent() as full:
        _run(outcomes, rows)
    found["dataflow"] = max(0.0, full.seconds - empty.seconds)


def _run(outcomes: Sequence[OutcomeBatch], rows: int) -> None:
    flow = Dataflow("stages")
    read = op.input("read", flow, _Given(outcomes))
    decoded = op.map("decode", read, lambda batch: batch)
    embedded = op.flat_map_batch("embed", decoded, lambda batches: batches)
    windows = window("window", embedded, Windows(rows, timedelta(milliseconds=20)))
    op.output("topic", windows, _Nowhere())
    op.output("table", windows, _Nowhere())
    run_main(flow)


@dataclass(frozen=True)
class _Known:
    """A model that has all vectors."""

    made: Mapping[Input, Encoded]

    def encode(self, texts: Sequence[Input]) -> list[Encoded]:
        return [self.made[text] for text in texts]

    def encode_changed(
        self,
        texts: Sequence[Input],
        known: Mapping[bytes, NDArray[np.float32]],  # noqa: ARG002 - it has all vectors anyway
    ) -> Changed:
        return Changed(self.encode(texts), tokens=0, reused=0)


@dataclass(frozen=True)
class _Given(DynamicSource[OutcomeBatch]):
    """Gives one batch at a time, as a lane does."""

    batches: Sequence[OutcomeBatch]

    def build(self, *_: object) -> StatelessSourcePartition[OutcomeBatch]:
        return _GivenPartition(iter(self.batches))


@dataclass
class _GivenPartition(StatelessSourcePartition[OutcomeBatch]):
    left: Iterator[OutcomeBatch]

    def next_batch(self) -> list[OutcomeBatch]:
        return [next(self.left)]


class _Nowhere(DynamicSink[tuple[str, Window]]):
    def build(self, *_: object) -> StatelessSinkPartition[tuple[str, Window]]:
        return _NowherePartition()


class _NowherePartition(StatelessSinkPartition[tuple[str, Window]]):
    def write_batch(self, items: list[tuple[str, Window]]) -> None:
        pass


def _measure(docs: int, say: Callable[[str], None]) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="headrace-stages-", ignore_cleanup_errors=True) as name,
        ExitStack() as stack,
    ):
        folder = Path(name)
        settings = load({}, folder)
        say("reading docstrings, loading the model")
        texts = take(gather().short, 0, docs + BATCHES[-1])
        encoder = encoder_of(settings)
        bundle = open_bundle(model_source_of(settings))
        tokenizer = Tokenizer(
            bundle.tokenizer_file,
            max_tokens=bundle.max_tokens,
            prompt=bundle.manifest.prompts["document"],
        )
        encoder.encode(texts[docs:])
        say("starting the broker")
        broker = stack.enter_context(Broker(folder=folder / "kafka"))
        stages = Stages(encoder, tokenizer, broker, folder, texts[:docs])
        found: dict[str, Any] = {"docs": docs, "stages": {}}
        for rows in BATCHES:
            say(f"batches of {rows}")
            found["stages"][str(rows)] = stages.measure(rows)
        say("one document at a time")
        found["floor"] = asdict(stages.floor(texts[:_ALONE]))
    return found


def _table(found: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("CPU µs a document", no_wrap=True, min_width=11)
    for rows in found["stages"]:
        table.add_column(f"{rows} at once", justify="right", no_wrap=True)
    table.add_column("what it is", no_wrap=True)
    for stage, what in STAGES:
        figures = (f"{found['stages'][rows][stage]:,.1f}" for rows in found["stages"])
        table.add_row(stage, *figures, what)
    sums = (f"{sum(stages.values()):,.1f}" for stages in found["stages"].values())
    table.add_row("all", *sums, "", style="bold")
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints a table, writes JSON.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__)
    parser.add_argument("--docs", type=int, default=2048, help="short texts")
    parser.add_argument("--json", type=Path, default=_LATEST, help="where the figures go")
    given = parser.parse_args(arguments)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    logs.configure()
    try:
        found = _measure(given.docs, lambda line: print(line, file=sys.stderr, flush=True))
    except HeadraceError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return error.exit_code
    console = Console(width=max(100, Console().width))
    console.print(_table(found))
    console.print(
        "One document alone takes {model_ms:.1f} ms in the model, and {transaction_ms:.1f} ms in a "
        "transaction until a consumer has it.".format(**found["floor"])
    )
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"all figures: {given.json}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
