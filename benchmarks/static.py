"""A static bundle beside its teacher: `python -m benchmarks.static [--texts N] [--dimension N]`.

Quality is measured on docstrings of packages of which no text was used to make the bundle:
whether a text's nearest neighbours are those that the teacher finds, and whether the first
paragraph of a docstring finds the rest of it. Word counts (BM25) are the control of the latter.
Speed is that of the encoder as the flow uses it, tokenising included, in one process and thread.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.machine import Quiet, facts
from benchmarks.texts import docstrings, shuffled
from flows.access import model_source_of
from flows.settings import load
from harness.process import ROOT
from headrace.errors import HeadraceError
from operators.model import ModelSource, load_encoder
from operators.model.distill import Plan, distill
from operators.model.static import neighbours_shared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from operators.model import Encoder

__all__ = ["main"]

LATEST: Final = ROOT / "build" / "bench" / "static.json"

_SHORT: Final = range(20, 200)
_MEDIUM: Final = range(200, 700)
_BEST: Final = 10
# Texts to compare the neighbours of, and pairs to retrieve.
_HELD_OUT: Final = {"short": 4000, "medium": 1000}
_PAIRS: Final = 1000
_ROUNDS: Final = 3
_SLICE: Final = 256
# Texts of a round: enough for a second or so of each.
_TIMED: Final = {"short": (256, 8192), "medium": (64, 2048)}
_QUALITY: Final = (
    *("overlap_at_10_short", "overlap_at_10_medium"),
    *("recall_at_1", "recall_at_10", "mrr_at_10"),
)
_WORD: Final = re.compile(r"\w+")
# The usual constants of BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework").
_K1: Final = 1.2
_B: Final = 0.75

REFERENCE: Final = "teacher, onnxruntime fp32"
TEACHER: Final = "teacher, as auto runs it"
TOKENS: Final = "static, from tokens alone"
FITTED: Final = "static, fitted to texts"
BM25: Final = "BM25"


@dataclass(frozen=True, slots=True)
class Pool:
    """Docstrings of some packages, each text once, in random order.

    Attributes:
        short: first paragraphs of 20 to 200 characters.
        medium: whole docstrings of 200 to 700.
        pairs: a first paragraph and the rest of the same docstring; neither comes twice.
    """

    short: Sequence[str]
    medium: Sequence[str]
    pairs: Sequence[tuple[str, str]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Distils, measures, prints a table, writes JSON.

    Returns:
        The exit code.
    """
    given = _parser().parse_args(arguments)
    try:
        found = _measure(given)
    except HeadraceError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return error.exit_code
    _show(found)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"all figures: {given.json}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.static", description=__doc__)
    parser.add_argument("--texts", type=int, default=10_000, help="to fit to, a fifth medium")
    parser.add_argument("--dimension", type=int, default=256, help="of the bundle")
    parser.add_argument("--json", type=Path, default=LATEST, help="where the figures go")
    return parser


def _pools() -> tuple[Pool, Pool]:
    """Texts to fit to, and texts of other packages to measure on."""
    halves: tuple[list[str], list[str]] = ([], [])
    for package, docstring in docstrings():
        halves[blake2b(package.encode()).digest()[0] % 2].append(docstring)
    fitted, held = (_pool(half) for half in halves)
    known = {*fitted.short, *fitted.medium}
    return fitted, Pool(
        [text for text in held.short if text not in known],
        [text for text in held.medium if text not in known],
        [pair for pair in held.pairs if pair[0] not in known],
    )


def _pool(half: Iterable[str]) -> Pool:
    short: set[str] = set()
    medium: set[str] = set()
    pairs: dict[str, str] = {}
    rests: set[str] = set()
    for docstring in half:
        first, rest = (" ".join(part.split()) for part in docstring.partition("\n\n")[::2])
        whole = f"{first} {rest}".strip()
        if len(first) in _SHORT:
            short.add(first)
        if len(whole) in _MEDIUM:
            medium.add(whole)
        if len(first) in _SHORT and len(rest) in _MEDIUM and not {first, rest} & {*pairs, *rests}:
            pairs[first] = rest
            rests.add(rest)
    ordered = shuffled(set(pairs))
    return Pool(shuffled(short), shuffled(medium), [(first, pairs[first]) for first in ordered])


def _measure(given: argparse.Namespace) -> dict[str, Any]:
    """All figures, ready for JSON."""
    machine, quiet = facts(), Quiet()
    fit_to, held = _pools()
    medium = given.texts // 5
    texts = [*fit_to.short[: given.texts - medium], *fit_to.medium[:medium]]
    source = model_source_of(load(os.environ, ROOT))
    with tempfile.TemporaryDirectory(prefix="headrace-static-") as folder:
        encoders = {
            REFERENCE: load_encoder(source, runtime="onnxruntime", precision="fp32"),
            TEACHER: load_encoder(source),
        }
        made = {}
        for name, own in ((TOKENS, ()), (FITTED, texts)):
            began = time.process_time()
            out = Path(folder) / f"bundle-{len(own)}"
            told = distill(source, out, Plan(given.dimension, texts=own), watch=_watch(name))
            made[name] = {
                "cpu_s": time.process_time() - began,
                "texts": told.texts,
                "megabytes": sum(file.stat().st_size for file in out.iterdir()) / 1e6,
            }
            encoders[name] = load_encoder(ModelSource(str(out), Path(folder)))
        quality = _quality(encoders, held)
        speed = _speed(encoders, held)
    return {
        "machine": machine,
        "quiet": quiet.figures(),
        "dimension": given.dimension,
        "made": made,
        "quality": quality,
        "docs_per_cpu_s": speed,
    }


def _watch(name: str) -> Callable[[str, int, int], None]:
    """Tells on standard error how far a bundle has come."""

    def watch(step: str, done: int, total: int) -> None:
        end = "\n" if done == total else "\r"
        print(f"{name}: {step} {done} of {total}", end=end, file=sys.stderr, flush=True)

    return watch


def _vectors(encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """float32 [texts, dimension]; each text's first vector."""
    return np.stack([one.vectors[0] for one in encoder.encode(texts)])


def _quality(encoders: Mapping[str, Encoder], held: Pool) -> dict[str, dict[str, float]]:
    """Neighbours shared with the teacher, and what is retrieved."""
    pairs = held.pairs[:_PAIRS]
    firsts, rests = [first for first, _ in pairs], [rest for _, rest in pairs]
    found: dict[str, dict[str, float]] = {BM25: _ranked(_bm25(firsts, rests))}
    pools = {"short": held.short, "medium": held.medium}
    texts = {kind: pools[kind][:count] for kind, count in _HELD_OUT.items()}
    truth = {kind: _vectors(encoders[TEACHER], own) for kind, own in texts.items()}
    for name in (TEACHER, TOKENS, FITTED):
        encoder = encoders[name]
        found[name] = _ranked(_vectors(encoder, firsts) @ _vectors(encoder, rests).T)
        for kind, own in texts.items():
            vectors = truth[kind] if name == TEACHER else _vectors(encoder, own)
            found[name][f"overlap_at_10_{kind}"] = neighbours_shared(vectors, truth[kind])
    return found


def _ranked(scores: NDArray[Any]) -> dict[str, float]:
    """How far up each query's own document comes: scores [queries, documents], own on diagonal."""
    own = np.diagonal(scores)[:, None]
    # A tie counts against it, half: what is scored alike could come in any order.
    ranks = 1 + (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2
    return {
        "recall_at_1": float((ranks <= 1).mean()),
        "recall_at_10": float((ranks <= _BEST).mean()),
        "mrr_at_10": float(np.where(ranks <= _BEST, 1 / ranks, 0).mean()),
    }


def _bm25(queries: Sequence[str], documents: Sequence[str]) -> NDArray[np.float64]:
    """Scores by the words that query and document share: float64 [queries, documents]."""
    counted = [Counter(_WORD.findall(text.lower())) for text in documents]
    lengths = np.array([own.total() for own in counted], dtype=np.float64)
    holders: defaultdict[str, list[int]] = defaultdict(list)
    for index, own in enumerate(counted):
        for word in own:
            holders[word].append(index)
    scores = np.zeros((len(queries), len(documents)))
    for row, query in enumerate(queries):
        for word in _WORD.findall(query.lower()):
            held = holders.get(word, [])
            rarity = math.log(1 + (len(documents) - len(held) + 0.5) / (len(held) + 0.5))
            times = np.array([counted[index][word] for index in held], dtype=np.float64)
            length = 1 - _B + _B * lengths[held] / lengths.mean()
            scores[row, held] += rarity * times * (_K1 + 1) / (times + _K1 * length)
    return scores


def _speed(encoders: Mapping[str, Encoder], held: Pool) -> dict[str, dict[str, list[float]]]:
    """Documents a CPU-second in interleaved rounds: of each encoder, for each kind of text."""
    pools = {"short": held.short, "medium": held.medium}
    found: dict[str, dict[str, list[float]]] = {
        name: {kind: [] for kind in pools} for name in encoders
    }
    for lap in range(1 + _ROUNDS):
        for kind, (few, many) in _TIMED.items():
            for name, encoder in encoders.items():
                texts = pools[kind][: many if name in {TOKENS, FITTED} else few]
                seconds = _timed(encoder, texts)
                if lap > 0:  # The first one warms up.
                    found[name][kind].append(len(texts) / seconds)
    return found


def _timed(encoder: Encoder, texts: Sequence[str]) -> float:
    """CPU-seconds of this process to encode texts as they come, as many at a time as in a flow."""
    groups = [texts[first : first + _SLICE] for first in range(0, len(texts), _SLICE)]
    began = time.process_time()
    for group in groups:
        encoder.encode(group)
    return time.process_time() - began


def _show(found: Mapping[str, Any]) -> None:
    """Prints what was found."""
    machine, quiet = found["machine"], found["quiet"]
    console = Console(width=150, highlight=False)
    console.print(
        f"{machine['processor']}; others used {quiet['cores_of_others']:.2f} cores; "
        f"{found['dimension']} dimensions; {found['made']}"
    )
    table = Table(caption="documents a CPU-second: median of the rounds, lowest to highest")
    headings = ("", "docs/CPU-s short", "medium", "overlap@10 short", "medium")
    for heading in (*headings, "recall@1", "recall@10", "MRR@10"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    for name in (REFERENCE, TEACHER, TOKENS, FITTED, BM25):
        quality = found["quality"].get(name, {})
        speed = found["docs_per_cpu_s"].get(name, {})
        shown = [f"{quality[field]:.3f}" if field in quality else "" for field in _QUALITY]
        table.add_row(name, *(_rate(speed.get(kind, ())) for kind in _TIMED), *shown)
    console.print(table)


def _rate(rates: Sequence[float]) -> str:
    if not rates:
        return ""
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"


if __name__ == "__main__":
    sys.exit(main())
