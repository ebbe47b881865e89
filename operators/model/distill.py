"""Distils a static bundle from a model: a vector for each token in place of the transformer.

A text then costs little more than its tokens, at less agreement with the teacher. What comes out
is a bundle like any other: the encoder, the runtimes and the sinks know no difference.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Final

import numpy as np
import tokenizers

from headrace.errors import UsageError
from operators.model import static
from operators.model.build import try_out, write_graph
from operators.model.bundle import ModelSource, assemble, open_bundle
from operators.model.choose import choose
from operators.model.encoder import Encoder
from operators.model.errors import ModelError
from operators.model.graph import look_up, opset_of
from operators.model.layout import tokenizer_text
from operators.model.manifest import (
    GRAPH_FILE,
    TOKENIZER_FILE,
    VERSION,
    FileRecord,
    Manifest,
    meaning,
)
from operators.model.runtime import open_runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from operators.model.bundle import Bundle
    from operators.model.runtime import Runtime

    Floats = NDArray[np.float32]
    Watch = Callable[[str, int, int], None]

__all__ = ["POOLING", "Distilled", "Plan", "distill"]

POOLING: Final = "static"
"""What the manifest of a static bundle says of its pooling."""

# Nothing in the graph limits the length; memory does, at a vector for each token.
_MOST_TOKENS: Final = 1 << 16
_TOKENS_PER_CALL: Final = 512
_TEXTS_PER_CALL: Final = 256
# Fewer tell nothing about what is gained on others.
_LEAST_TEXTS: Final = 500
_HELD_OUT: Final = 10
_MOST_HELD_OUT: Final = 2000
# How strongly a token's vector is held where it began; which is best depends on the texts.
_PULLS: Final = (0.1, 0.03)
# Places kept free in a vocabulary, which no text has.
_UNUSED: Final = re.compile(r"[\[<]unused_?\d+[\]>]")
# What marks where a word goes on (WordPiece) or begins (SentencePiece, byte-level BPE).
_MARKS: Final = "#\u2581\u0120"
_RANK_OF_CHARACTERS: Final = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """What to make.

    Attributes:
        dimension: floats in a vector; at most the teacher's.
        max_tokens: the most tokens of one input.
        texts: like those that will be embedded, to fit the vectors to; none leaves them as the
            tokens alone give them.
    """

    dimension: int = 256
    max_tokens: int = 2048
    texts: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Distilled:
    """What was made.

    Attributes:
        manifest: the new bundle's.
        vocabulary: tokens with a vector.
        texts: texts that the vectors were fitted to; 0 if they were not.
        overlap_before: of each held-out text's 10 nearest neighbours by the teacher, the share
            that the bundle finds too, before the fit; none without texts.
        overlap: the same of the bundle as it is.
    """

    manifest: Manifest
    vocabulary: int
    texts: int
    overlap_before: float | None
    overlap: float | None


def distill(
    source: ModelSource,
    out: Path,
    plan: Plan,
    *,
    runtime: str = "auto",
    precision: str = "auto",
    watch: Watch = lambda *_: None,
) -> Distilled:
    """Makes a static bundle of a model.

    Args:
        source: the teacher.
        out: the new bundle's folder; isn't there yet, or is empty.
        plan: what to make.
        runtime: what runs the teacher: `auto`, `onnxruntime` or `openvino`.
        precision: of the teacher: `auto`, `fp32` or `bf16`.
        watch: told of progress: which step, how much of it is done, and of how much.

    Raises:
        ModelError: the teacher can't be had, or is static itself.
        UsageError: the plan or the folder doesn't do.
    """
    teacher = open_bundle(source)
    _check(teacher, out, plan)
    choice = choose(teacher, runtime, precision)
    running = open_runtime(teacher, (choice.runtime, choice.precision))
    tokenizer = _tokenizer(teacher, plan.max_tokens)
    # Texts first: what is wrong with them shows before the long part.
    bags, kept = _bags(tokenizer, plan.texts, teacher.max_tokens)
    vectors, nothing = _of_tokens(teacher, running, tokenizer, watch)
    wanted = _of_texts(Encoder(teacher, running, choice.cost), kept, watch)
    # The mean is taken off: shared by all, it only draws texts together.
    mean = (wanted if kept else vectors[_ranks(tokenizer, len(vectors)) > 0]).mean(axis=0)
    weighted = _weighted(vectors, tokenizer)
    axes = static.principal(wanted - mean if kept else weighted, plan.dimension)
    fitted = _Fitted(weighted @ axes)
    if kept:
        fitted = _fit(fitted.table, bags, (wanted - mean) @ axes, wanted, watch)
    otherwise = static.unit((nothing - mean) @ axes)[0]
    write = partial(_write, teacher, plan, tokenizer, fitted.table, otherwise)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        manifest = assemble(out, write)
    except OSError as error:
        raise UsageError(f"OUT: {out} — can't be written ({error.strerror or error})") from error
    return Distilled(
        manifest=manifest,
        vocabulary=len(vectors),
        texts=len(kept) if fitted.moved else 0,
        overlap_before=fitted.before,
        overlap=fitted.after,
    )


def _check(teacher: Bundle, out: Path, plan: Plan) -> None:
    """Refuses what can't be done, before anything is."""
    if teacher.manifest.pooling == POOLING:
        raise ModelError(f"model.name: {teacher.name} — is static already; name its teacher")
    if not 1 <= plan.dimension <= teacher.dimension:
        raise UsageError(f"--dimension: {plan.dimension} — must be from 1 to {teacher.dimension}")
    if not 1 <= plan.max_tokens <= _MOST_TOKENS:
        raise UsageError(f"--max-tokens: {plan.max_tokens} — must be from 1 to {_MOST_TOKENS}")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"OUT: {out} — is there already; name another folder, or remove it")


def _tokenizer(teacher: Bundle, max_tokens: int) -> tokenizers.Tokenizer:
    """The teacher's tokenizer without the special tokens around a text."""
    raw = json.loads(teacher.tokenizer_file.read_bytes())
    raw["post_processor"] = None
    text = json.dumps(raw, ensure_ascii=False).encode()
    limited = tokenizer_text(text, max_tokens=max_tokens, lowercase=False)
    return tokenizers.Tokenizer.from_str(limited)


def _special(tokenizer: tokenizers.Tokenizer) -> list[int]:
    """Tokens that stand for no word, the unknown one among them."""
    added = tokenizer.get_added_tokens_decoder()
    return [token for token, known in added.items() if known.special]


def _bags(
    tokenizer: tokenizers.Tokenizer, texts: Iterable[str], most: int
) -> tuple[list[list[int]], list[str]]:
    """The tokens of each different text that has some, and those texts.

    No more tokens than the teacher sees.
    """
    special = set(_special(tokenizer))
    kept: dict[str, list[int]] = {}
    given = [text.encode(errors="replace").decode() for text in dict.fromkeys(texts)]
    for text in given:
        ids = [token for token in tokenizer.encode(text).ids[:most] if token not in special]
        if ids:
            kept[text] = ids
    if given and len(kept) < _LEAST_TEXTS:
        raise UsageError(
            f"--texts: {len(kept)} different texts — at least {_LEAST_TEXTS} are needed"
        )
    return list(kept.values()), list(kept)


def _of_tokens(
    teacher: Bundle, running: Runtime, tokenizer: tokenizers.Tokenizer, watch: Watch
) -> tuple[Floats, Floats]:
    """The teacher's vector of each token as a text of its own, and of a text of nothing."""
    lead, trail = _frame(teacher)
    size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
    rows = max(1, _TOKENS_PER_CALL // (len(lead) + 1 + len(trail)))
    vectors = np.zeros((size, teacher.dimension), dtype=np.float32)
    for first in range(0, size, rows):
        last = min(first + rows, size)
        ids = np.array([[*lead, token, *trail] for token in range(first, last)], dtype=np.int64)
        vectors[first:last] = running.run(ids, np.ones_like(ids))
        watch("tokens", last, size)
    nothing = np.array([[*lead, *trail] or [teacher.manifest.pad_id]], dtype=np.int64)
    return vectors, running.run(nothing, np.ones_like(nothing))


def _frame(teacher: Bundle) -> tuple[list[int], list[int]]:
    """What the teacher puts before and after a document's tokens, its prompt included."""
    tokenizer = tokenizers.Tokenizer.from_file(str(teacher.tokenizer_file))
    tokenizer.no_truncation()
    framed = tokenizer.encode("a")
    first = sum(takewhile(bool, framed.special_tokens_mask))
    last = sum(takewhile(bool, reversed(framed.special_tokens_mask)))
    prompt = tokenizer.encode(teacher.manifest.prompts["document"], add_special_tokens=False).ids
    return [*framed.ids[:first], *prompt], framed.ids[len(framed.ids) - last :]


def _of_texts(encoder: Encoder, texts: Sequence[str], watch: Watch) -> Floats:
    """The teacher's vectors of texts: float32 [texts, width]."""
    vectors = np.zeros((len(texts), encoder.dimension), dtype=np.float32)
    # Of like length together, and put back in order.
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    for first in range(0, len(order), _TEXTS_PER_CALL):
        rows = order[first : first + _TEXTS_PER_CALL]
        encoded = encoder.encode([texts[row] for row in rows])
        vectors[rows] = [one.vectors[0] for one in encoded]
        watch("texts", first + len(rows), len(order))
    return vectors


def _weighted(vectors: Floats, tokenizer: tokenizers.Tokenizer) -> Floats:
    """What sets each token apart from the mean one, by how much it counts."""
    ranks = _ranks(tokenizer, len(vectors))
    known = ranks > 0
    weighted = np.zeros_like(vectors)
    apart = vectors[known] - vectors[known].mean(axis=0)
    weighted[known] = apart * static.zipf_weights(ranks[known])[:, None]
    return weighted


def _ranks(tokenizer: tokenizers.Tokenizer, size: int) -> NDArray[np.int64]:
    """Each token's rank by frequency, as its place tells it; 0 for those that stand for no word.

    Vocabularies list frequent tokens first, but for single characters, which come in the order of
    their codes. Of ASCII and of punctuation, these say little.
    """
    special = set(_special(tokenizer))
    ranks = np.zeros(size, dtype=np.int64)
    rank = 0
    for word, token in sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1]):
        if token in special or _UNUSED.fullmatch(word):
            continue
        bare = word.lstrip(_MARKS)
        if len(bare) <= 1 and (bare.isascii() or not bare.isalnum()):
            ranks[token] = _RANK_OF_CHARACTERS
        else:
            rank += 1
            ranks[token] = rank
    return ranks


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A table of token vectors, and what it is worth on held-out texts."""

    table: Floats
    before: float | None = None
    after: float | None = None

    @property
    def moved(self) -> bool:
        return self.before != self.after


def _fit(
    table: Floats, bags: Sequence[Sequence[int]], wanted: Floats, truth: Floats, watch: Watch
) -> _Fitted:
    """Fits the table to texts, as far as that helps on texts that it was not fitted to."""
    held, rest = _split(len(truth))
    tried = static.Bags.of([bags[text] for text in held])
    learned = static.Bags.of([bags[text] for text in rest])
    wanted = wanted[rest]
    table = static.scaled(table, learned, wanted)
    learned = learned.levelled(table, np.linalg.norm(wanted, axis=1))

    def worth(own: Floats) -> float:
        return static.neighbours_shared(static.unit(tried.of_texts(own)), truth[held])

    before = worth(table)
    best = _Fitted(table, before, before)
    for number, pull in enumerate(_PULLS, start=1):
        own = static.fit(table, learned, wanted, pull)
        after = worth(own)
        if after > (best.after or 0.0):
            best = _Fitted(own, before, after)
        watch("fit", number, len(_PULLS))
    return best


def _split(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Texts to check on and texts to fit to; the same ones each time."""
    order = np.random.default_rng(0).permutation(count)
    size = min(_MOST_HELD_OUT, count // _HELD_OUT)
    return order[:size], order[size:]


def _write(
    teacher: Bundle,
    plan: Plan,
    tokenizer: tokenizers.Tokenizer,
    table: Floats,
    otherwise: Floats,
    folder: Path,
) -> Manifest:
    """Fills an empty folder with the bundle; the manifest last."""
    model = look_up(table, otherwise)
    write_graph(model, folder / GRAPH_FILE, teacher.name)
    (folder / TOKENIZER_FILE).write_text(tokenizer.to_str(), encoding="utf-8")
    dimension = try_out(folder)
    files = {name: FileRecord.of(folder / name) for name in (GRAPH_FILE, TOKENIZER_FILE)}
    prompts = {"document": "", "query": ""}
    manifest = Manifest(
        version=VERSION,
        name=f"{teacher.name}-static-{dimension}",
        source=f"distilled from {teacher.name} ({teacher.fingerprint})",
        source_sha256=teacher.manifest.files[GRAPH_FILE].sha256,
        dimension=dimension,
        max_tokens=plan.max_tokens,
        max_positions=_MOST_TOKENS,
        pad_id=teacher.manifest.pad_id,
        pooling=POOLING,
        dense=(),
        prompts=prompts,
        precision="fp32",
        opset=opset_of(model),
        fingerprint=meaning(
            files,
            dimension=dimension,
            max_tokens=plan.max_tokens,
            pooling=POOLING,
            prompts=prompts,
        ),
        files=files,
    )
    manifest.write(folder)
    return manifest
