"""Which runtime and precision serve a model best on this machine, by measurement.

`auto` takes the fastest that agrees with ONNX Runtime in fp32 and whose vectors don't depend on
what else is in the batch: otherwise a replay, or a query, would get another vector than the
document did. Measured once for each processor, set of versions and model, in CPU time and in
interleaved rounds, so that a busy machine doesn't tip the scales; kept as JSON beside the bundle.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from operators.batching import CostModel
from operators.model.bundle import locked
from operators.model.errors import CacheError
from operators.model.padding import pad
from operators.model.runtime import candidates, open_runtime, versions
from operators.model.sample import NEAR, TEXTS
from operators.tokenize import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from numpy.typing import NDArray

    from operators.model.bundle import Bundle
    from operators.model.runtime import Candidate, Runtime

__all__ = ["LEAST_AGREEMENT", "Choice", "choose", "fit_cost"]

LEAST_AGREEMENT: Final = 0.99
"""The share of nearest neighbours that a candidate must have in common with fp32."""

_FORMAT: Final = 3
_LEAST_ALONE: Final = 0.9999
_NEIGHBOURS: Final = 10
_ROUNDS: Final = 3
_GROUP: Final = 16
_ALONE: Final = 24
# A gain below this may be noise (1.12 was seen of a runtime that turned out slower), and is not
# worth another runtime than the reference.
_LEAST_GAIN: Final = 1.2
# Rows and tokens of calls like the ones that come: a few texts in hand, or many.
_SHAPES: Final = ((1, 8), (1, 32), (1, 128), (4, 16), (8, 16), (16, 16), (8, 48), (4, 128))
_REFERENCE: Final = ("onnxruntime", "fp32")


@dataclass(frozen=True, slots=True)
class Choice:
    """What runs a model on this machine.

    Attributes:
        runtime: `onnxruntime` or `openvino`.
        precision: `fp32`, `bf16` or `int8`.
        reason: why, for people.
        refused: why not, for each faster candidate that isn't sound.
        figures: what was measured, for each candidate.
        cost: what one call costs.
    """

    runtime: str
    precision: str
    reason: str
    refused: dict[str, str]
    figures: dict[str, dict[str, float]]
    cost: CostModel


def choose(
    bundle: Bundle,
    runtime: str = "auto",
    precision: str = "auto",
    least_agreement: float = LEAST_AGREEMENT,
) -> Choice:
    """The fastest sound way to run a bundle, or the one asked for.

    The first call on a machine measures for some seconds; later ones read what it found.

    Args:
        bundle: the model.
        runtime: `auto`, `onnxruntime` or `openvino`.
        precision: `auto`, `fp32`, `bf16` or `int8`.
        least_agreement: the least share of nearest neighbours in common with fp32, of what `auto`
            may take as precision; one that is asked for by name is taken as it is.

    Raises:
        ModelError: what is asked for isn't there, with the way out.
    """
    able = candidates(runtime, precision, has_int8=bundle.has_int8)
    floor = least_agreement if precision == "auto" else None
    path = bundle.measurements / f"choice-{_machine(bundle, able, floor)}.json"
    found = _read(path)
    if found is not None:
        return found
    try:
        with locked(path):
            found = _read(path)
            if found is None:
                found = _measure(bundle, able, floor)
                _write(path, found)
    except CacheError:
        # A cache that is only read still serves; this machine then measures at each start.
        found = found or _measure(bundle, able, floor)
    return found


def fit_cost(shapes: Sequence[tuple[int, int]], seconds: Sequence[float]) -> CostModel:
    """The cost model nearest to measured calls, by least squares of relative errors.

    Args:
        shapes: rows and longest of each call; at least two that differ in their product.
        seconds: what each call took; above 0.

    Returns:
        A model with neither cost below zero, and a token's above it.
    """
    tokens = np.array([rows * longest for rows, longest in shapes], dtype=np.float64)
    took = np.array(seconds, dtype=np.float64)
    # Relative, or the largest call alone would decide on the fixed cost.
    system = np.stack([np.ones_like(tokens), tokens], axis=1) / took[:, None]
    (call, token), *_ = np.linalg.lstsq(system, np.ones_like(took), rcond=None)
    if call < 0 or token <= 0:
        return CostModel(max(float(call), 0.0), float(np.median(took / tokens)))
    return CostModel(float(call), float(token))


def _machine(bundle: Bundle, able: Sequence[Candidate], floor: float | None) -> str:
    """Names all that a measurement depends on; 16 hex digits."""
    forms = sorted({precision for _, precision in able})
    parts = {
        "format": _FORMAT,
        "processor": _processor(),
        "versions": versions(),
        "fingerprints": [bundle.at(form).fingerprint for form in forms],
        "candidates": able,
        "floor": floor,
    }
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()


def _processor() -> str:
    """The processor's model and abilities, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "model\t", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def _measure(bundle: Bundle, able: Sequence[Candidate], floor: float | None) -> Choice:
    """Measures each candidate, and takes the best."""
    batches = _Batches(bundle, TEXTS)
    runtimes = {own: open_runtime(bundle, own) for own in able}
    speeds = _speeds(batches, runtimes)
    figures = {own: {"docs_per_cpu_second": speed} for own, speed in speeds.items()}
    compared = [own for own in able if _is_compared(own, speeds)]
    if compared:
        near = _Batches(bundle, NEAR)
        reference = runtimes.get(_REFERENCE) or open_runtime(bundle, _REFERENCE)
        truth, near_truth = batches.run(reference), near.run(reference)
        for own in compared:
            figures[own]["overlap_at_10"] = _overlap(near.run(runtimes[own]), near_truth)
            figures[own].update(_likeness(batches, runtimes[own], truth))
    best, reason = _best(figures, floor)
    cost = _cost(runtimes[best], bundle.max_tokens)
    named = {" ".join(own): rounded for own, rounded in _rounded(figures).items()}
    return Choice(best[0], best[1], reason, _refused(figures, best, floor), named, cost)


def _is_compared(candidate: Candidate, speeds: dict[Candidate, float]) -> bool:
    """Whether a candidate's vectors are worth comparing with fp32's, which takes its time.

    Those of fp32 by another runtime are not, unless it is fast enough to be taken.
    """
    if candidate == _REFERENCE:
        return False
    first = _first(speeds)
    return candidate[1] != "fp32" or speeds[candidate] >= _LEAST_GAIN * speeds[first]


def _first(candidates: Collection[Candidate]) -> Candidate:
    """What is taken where nothing is much faster."""
    return _REFERENCE if _REFERENCE in candidates else next(iter(candidates))


def _best(figures: dict[Candidate, dict[str, float]], floor: float | None) -> tuple[Candidate, str]:
    """The fastest candidate that is sound, and why; the first one where none is much faster."""
    if len(figures) == 1:
        return next(iter(figures)), "the only one that fits the settings and this machine"
    first = _first(figures)
    sound = [own for own, values in figures.items() if not _fault(values, floor)]
    fastest = max(sound, key=lambda own: figures[own]["docs_per_cpu_second"], default=first)
    gain = _gain(figures, fastest, first)
    if fastest == first or gain < _LEAST_GAIN:
        return first, "nothing that agrees with fp32 is faster on this machine"
    values = figures[fastest]
    return fastest, (
        f"{gain:.2f} times as fast as {' '.join(first)} on this machine, with "
        f"{values['overlap_at_10']:.3f} of the same 10 nearest neighbours"
    )


def _refused(
    figures: dict[Candidate, dict[str, float]], best: Candidate, floor: float | None
) -> dict[str, str]:
    """Why each candidate that would be faster than the best isn't taken."""
    refused = {}
    for own, values in figures.items():
        fault, gain = _fault(values, floor), _gain(figures, own, best)
        if fault and gain > 1:
            refused[" ".join(own)] = f"{fault}; {gain:.2f} times as fast as {' '.join(best)}"
    return refused


def _fault(values: dict[str, float], floor: float | None) -> str:
    """What makes a candidate unsound; empty if nothing does, or it was asked for by name.

    What was not compared is fp32 in any case.
    """
    if floor is None or "overlap_at_10" not in values:
        return ""
    if values["overlap_at_10"] < floor:
        return f"overlap_at_10 {values['overlap_at_10']:.4f} is below model.least_agreement {floor}"
    if values["alone_cosine"] < _LEAST_ALONE:
        return (
            f"a text's vector depends on its batch: alone_cosine {values['alone_cosine']:.6f} is "
            f"below {_LEAST_ALONE}"
        )
    return ""


def _gain(
    figures: dict[Candidate, dict[str, float]], candidate: Candidate, base: Candidate
) -> float:
    """How many times as fast one candidate is as another."""
    return figures[candidate]["docs_per_cpu_second"] / figures[base]["docs_per_cpu_second"]


class _Batches:
    """Texts, tokenised and padded in groups of like length."""

    def __init__(self, bundle: Bundle, texts: Sequence[str]) -> None:
        tokenizer = Tokenizer(bundle.tokenizer_file, max_tokens=bundle.max_tokens)
        rows = [tokenizer.encode(text).chunks[0].ids for text in texts]
        rows.sort(key=len)
        self._pad_id = bundle.manifest.pad_id
        self.rows = rows
        self.groups = [
            self._pad(rows[start : start + _GROUP]) for start in range(0, len(rows), _GROUP)
        ]

    def _pad(self, rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:

        return pad(rows, self._pad_id)

    def run(self, runtime: Runtime) -> NDArray[np.float32]:
        """All of the texts' vectors: float32 [texts, dimension]."""
        return np.concatenate([runtime.run(*group) for group in self.groups])

    def run_alone(self, runtime: Runtime, chosen: Sequence[int]) -> NDArray[np.float32]:
        """Vectors of some texts, each in a call of its own."""
        return np.concatenate([runtime.run(*self._pad([self.rows[row]])) for row in chosen])


def _likeness(batches: _Batches, runtime: Runtime, truth: NDArray[np.float32]) -> dict[str, float]:
    """How near a candidate's vectors are to the reference's, and to their own in other batches."""
    vectors = batches.run(runtime)
    step = max(1, len(vectors) // _ALONE)
    chosen = range(0, len(vectors), step)
    alone = batches.run_alone(runtime, chosen)
    return {
        "fp32_cosine": float((vectors * truth).sum(axis=1).min()),
        "alone_cosine": float((alone * vectors[list(chosen)]).sum(axis=1).min()),
    }


def _overlap(vectors: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """The mean share of each text's nearest neighbours that both have."""
    near = [_neighbours(own) for own in (vectors, truth)]
    shared = [len(set(left) & set(right)) for left, right in zip(*near, strict=True)]
    return float(np.mean(shared)) / _NEIGHBOURS


def _neighbours(vectors: NDArray[np.float32]) -> list[list[int]]:
    """The nearest others of each text, by cosine."""
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -2.0)
    nearest: list[list[int]] = np.argsort(-likeness, axis=1)[:, :_NEIGHBOURS].tolist()
    return nearest


def _speeds(batches: _Batches, runtimes: dict[Candidate, Runtime]) -> dict[Candidate, float]:
    """Documents a CPU-second of each candidate, on every other group of the sample."""
    groups = batches.groups[::2]
    documents = sum(len(input_ids) for input_ids, _ in groups)
    took: dict[Candidate, list[float]] = {own: [] for own in runtimes}
    for lap in range(1 + _ROUNDS):
        for own, runtime in runtimes.items():
            seconds = _cpu_seconds(partial(_run_all, runtime, groups))
            if lap > 0:  # The first one warms up.
                took[own].append(seconds)
    return {own: documents / float(np.median(seconds)) for own, seconds in took.items()}


def _run_all(
    runtime: Runtime, groups: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]
) -> None:
    """Runs every group, for the time that it takes."""
    for group in groups:
        runtime.run(*group)


def _cost(runtime: Runtime, max_tokens: int) -> CostModel:
    """Measures calls of several shapes, each at its least, and fits the cost model."""
    shapes = [(rows, tokens) for rows, tokens in _SHAPES if tokens <= max_tokens] or [
        (1, 1),
        (8, 1),
    ]
    seconds = []
    for shape in shapes:
        batch = np.ones(shape, dtype=np.int64)
        runtime.run(batch, batch)  # Runtimes prepare for a new shape.
        seconds.append(
            min(_cpu_seconds(partial(runtime.run, batch, batch)) for _ in range(_ROUNDS))
        )
    return fit_cost(shapes, seconds)


def _cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time that this process spent on `work`, above 0."""
    began = time.process_time()
    work()
    return max(time.process_time() - began, 1e-9)


def _rounded(
    figures: dict[Candidate, dict[str, float]],
) -> dict[Candidate, dict[str, float]]:
    """Figures with as many digits as they deserve."""
    digits = {"docs_per_cpu_second": 1, "overlap_at_10": 4}
    return {
        own: {name: round(value, digits.get(name, 6)) for name, value in values.items()}
        for own, values in figures.items()
    }


def _read(path: Path) -> Choice | None:
    """What was chosen before; none if nothing was, or it can't be read."""
    try:
        raw: dict[str, Any] = json.loads(path.read_bytes())
        return Choice(**{**raw, "cost": CostModel(**raw["cost"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None  # Measured again.


def _write(path: Path, choice: Choice) -> None:
    """Puts a choice in place in one step; without one, the next start measures again."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        temporary.write_text(json.dumps(asdict(choice), indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)
