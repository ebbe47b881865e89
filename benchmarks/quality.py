"""Is what the table holds as good as the model? `python -m benchmarks.quality`.

Fifty short news articles, and how alike people find each two of them (Lee, Pincombe and Welsh,
2005), from the package gensim. A real flow embeds the articles into a table. Then two questions are
asked of its vectors, and of sentence-transformers' own for the same texts: how well do their
cosines agree with people (Spearman's rank correlation over all pairs), and how well does each
article rank the others (normalised discounted cumulative gain of the first ten)? Exits 1 if either
differs by more than `TOLERANCE`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import lance
import numpy as np
from confluent_kafka import Producer

from benchmarks.rig import passed_on
from benchmarks.weights import transformer_folder
from flows.access import model_source_of
from flows.settings import load
from harness.broker import Broker
from harness.flow import Flow
from harness.process import ROOT, HarnessError, tail
from harness.workload import Topics, make_topics
from headrace.errors import HeadraceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["TOLERANCE", "Quality", "articles", "main", "quality_of"]

TOLERANCE: Final = 0.005
"""How much worse or better than the model the table may be."""

FIRST: Final = 10
"""Of a ranking, how many places count."""

_TIMEOUT_S: Final = 240.0


@dataclass(frozen=True, slots=True)
class Quality:
    """What vectors are worth on the articles.

    Attributes:
        correlation: Spearman's, of cosines and people's judgements, over all pairs.
        gain: Normalised discounted cumulative gain of the first ten, the mean over all articles.
    """

    correlation: float
    gain: float

    def near(self, other: Quality) -> bool:
        """Whether both figures are within the tolerance."""
        apart = abs(self.correlation - other.correlation), abs(self.gain - other.gain)
        return max(apart) <= TOLERANCE

    def __str__(self) -> str:
        return f"rank correlation {self.correlation:.4f}, nDCG@{FIRST} {self.gain:.4f}"


def articles() -> tuple[list[str], NDArray[np.float64]]:
    """The articles, and how alike people find them: [articles, articles], from 0 to 1.

    Raises:
        UsageError: gensim is not installed.
    """
    spec = importlib.util.find_spec("gensim")
    if spec is None or spec.origin is None:
        raise UsageError("gensim: is not installed, and carries the articles; run make install")
    folder = Path(spec.origin).parent / "test" / "test_data"
    texts = (folder / "lee.cor").read_text(encoding="iso-8859-1").splitlines()
    once = np.loadtxt(folder / "similarities0-1.txt")  # each pair's, above the diagonal
    return texts, np.maximum(once, once.T)


def quality_of(vectors: NDArray[np.float32], judged: NDArray[np.float64]) -> Quality:
    """What unit vectors are worth.

    Args:
        vectors: float32 [articles, dimension].
        judged: [articles, articles].
    """
    # Imported late: they take a second, and the options are looked at before.
    from scipy.stats import spearmanr  # noqa: PLC0415
    from sklearn.metrics import ndcg_score  # noqa: PLC0415

    cosines = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    pairs = np.triu_indices(len(vectors), 1)
    others = ~np.eye(len(vectors), dtype=bool)
    shape = len(vectors), len(vectors) - 1
    gain = ndcg_score(judged[others].reshape(shape), cosines[others].reshape(shape), k=FIRST)
    return Quality(float(spearmanr(judged[pairs], cosines[pairs]).statistic), float(gain))


def table_vectors(texts: Sequence[str], environ: Mapping[str, str]) -> NDArray[np.float32]:
    """The vectors that a flow writes into its table, in the order of the texts.

    Args:
        texts: Each is a document.
        environ: May have settings of model and batches.

    Raises:
        HarnessError: The flow ended, or did not write them in time.
    """
    topics = Topics()
    with tempfile.TemporaryDirectory(prefix="headrace-quality-") as name:
        folder = Path(name)
        uri = str(folder / "lancedb")
        with Broker(folder=folder / "kafka") as broker:
            make_topics(broker.bootstrap_servers, topics, 2)
            producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
            for number, text in enumerate(texts):
                producer.produce(topics.source, json.dumps({"text": text}), f"{number}")
            producer.flush()
            settings = passed_on(environ, folder) | topics.environment(
                broker.bootstrap_servers, "quality", uri
            )
            with Flow(settings, log=folder / "flow.log") as flow:
                return _read(f"{uri}/documents.lance", len(texts), flow)


def model_vectors(texts: Sequence[str], environ: Mapping[str, str]) -> NDArray[np.float32]:
    """The vectors that sentence-transformers gives the texts."""
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - loads torch

    source = model_source_of(load(environ, ROOT))
    with tempfile.TemporaryDirectory(prefix="headrace-quality-") as folder:
        model = SentenceTransformer(transformer_folder(source, Path(folder, "m")), device="cpu")
        return np.asarray(model.encode(list(texts), normalize_embeddings=True), np.float32)


def _read(table: str, rows: int, flow: Flow) -> NDArray[np.float32]:
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline and flow.alive:
        time.sleep(0.5)
        if not Path(table).exists():
            continue
        found = lance.dataset(table).to_table(columns=["id", "vector"], filter="NOT deleted")
        if found.num_rows == rows:
            order = np.argsort([int(one) for one in found.column("id").to_pylist()])
            return np.stack(found.column("vector").to_numpy())[order].astype(np.float32)
    raise HarnessError(f"flow: did not write {rows} rows: {tail(flow.log, 3)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints.

    Returns:
        The exit code: 1 where table and model differ.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.parse_args(arguments)
    try:
        texts, judged = articles()
        model = quality_of(model_vectors(texts, os.environ), judged)
        print(f"sentence-transformers: {model}")
        table = quality_of(table_vectors(texts, os.environ), judged)
    except HeadraceError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return error.exit_code
    verdict = "within" if table.near(model) else "NOT WITHIN"
    print(f"the table:             {table}; {verdict} {TOLERANCE} of it")
    return int(not table.near(model))


if __name__ == "__main__":
    sys.exit(main())
