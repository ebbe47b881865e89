"""Texts to vectors, with the real model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from operators.batching import CostModel
from operators.encoding import Prefixed
from operators.model import Chunking, Encoder, load_encoder, open_runtime
from operators.model.padding import pad

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from operators.encoding import Encoded
    from operators.model import Bundle, ModelSource, Runtime
    from operators.splitting import Split

TEXTS = [
    "A ship left the harbour before the storm.",
    "x",
    "",
    "The query reads an index of the table. " * 60,
    "A ship left the harbour before the storm.",
    "Brot und Butter, أهلا وسهلا, 你好 🚢",
    "flour  \n\n yeast \t salt",
]


class Recorder:
    """A runtime that notes the shapes of its calls."""

    def __init__(self, runtime: Runtime) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self._runtime = runtime

    def run(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Notes and runs."""
        self.shapes.append(input_ids.shape)
        return self._runtime.run(input_ids, attention_mask)


def first(encoded: list[Encoded]) -> NDArray[np.float32]:
    """Each text's first vector."""
    return np.stack([text.vectors[0] for text in encoded])


def test_order_is_kept(encoder: Encoder) -> None:
    """Sorted and cut as they are, texts get the vectors that each gets alone."""
    together = first(encoder.encode(TEXTS))
    alone = np.stack([encoder.encode([text])[0].vectors[0] for text in TEXTS])
    assert (together * alone).sum(axis=1).min() > 0.9999
    likeness = together @ together.T
    np.fill_diagonal(likeness, 0)
    assert likeness.argmax(axis=1)[0] == 4


def test_vectors_are_unit_float32_rows(encoder: Encoder) -> None:
    """Vectors are float32, contiguous, of unit length, one row for a truncated text."""
    for text in encoder.encode(TEXTS):
        assert text.vectors.shape == (1, encoder.dimension)
        assert text.vectors.dtype == np.float32
        assert text.vectors.flags.c_contiguous
        assert np.linalg.norm(text.vectors[0]) == pytest.approx(1, abs=1e-5)


def test_same_text_same_vector(encoder: Encoder) -> None:
    """A text twice in a batch has twice the same vector, whatever is around it."""
    found = first(encoder.encode(TEXTS))
    np.testing.assert_allclose(found[0], found[4], atol=1e-6)


def test_counts_and_truncation(encoder: Encoder) -> None:
    """Tokens are counted with the special ones, and only the long text is truncated."""
    found = encoder.encode(TEXTS)
    assert [text.truncated for text in found] == [False, False, False, True, False, False, False]
    assert (found[1].tokens, found[2].tokens, found[3].tokens) == (3, 2, 256)
    assert all(sum(text.chunk_tokens) == text.tokens for text in found)


def test_chunks_cover_a_long_text(source: ModelSource) -> None:
    """With chunks allowed a long text has several vectors, which cover all of it."""
    chunking = load_encoder(
        source, runtime="onnxruntime", precision="fp32", chunking=Chunking(max_chunks=8)
    )
    (long, short) = chunking.encode([TEXTS[3], "x"])
    assert long.vectors.shape == (len(long.spans), chunking.dimension)
    assert len(long.spans) == 3
    assert (long.spans[0][0], long.spans[-1][1]) == (0, len(TEXTS[3]))
    for (_, end), (start, _) in zip(long.spans, long.spans[1:], strict=False):
        assert start < end
    assert not long.truncated
    assert short.vectors.shape == (1, chunking.dimension)
    (alone,) = chunking.encode([TEXTS[3][slice(*long.spans[0])]])
    assert float(alone.vectors[0] @ long.vectors[0]) > 0.9999


@pytest.mark.parametrize("split", ["tokens", "sentences", "markdown"])
def test_unchanged_chunks_cost_no_inference(source: ModelSource, split: Split) -> None:
    """What is taken again has the vectors of embedding afresh, for a fraction of the tokens."""
    chunking = Chunking(20, 0, split)
    encoder = load_encoder(source, runtime="onnxruntime", precision="fp32", chunking=chunking)
    parts = [f"## Part {n}\n\n" + f"This sentence is about {n} ships. " * 30 for n in range(8)]
    old = encoder.encode_changed([Prefixed("ships", "\n\n".join(parts))], {})
    assert (old.reused, old.tokens) == (0, old.encoded[0].tokens)
    known = dict(zip(old.encoded[0].hashes, old.encoded[0].vectors, strict=True))
    parts[-1] += "And it ends with another one."
    text = Prefixed("ships", "\n\n".join(parts))
    new = encoder.encode_changed([text], known)
    [afresh] = encoder.encode([text])
    np.testing.assert_allclose(new.encoded[0].vectors, afresh.vectors, atol=1e-5)
    assert new.encoded[0]._replace(vectors=0, hashes=()) == afresh._replace(vectors=0)  # type: ignore[arg-type]
    assert new.reused == len(afresh.spans) - 1
    assert new.tokens == afresh.chunk_tokens[-1]
    renamed = encoder.encode_changed([Prefixed("boats", text.text)], known)
    assert renamed.reused == 0


def test_query_is_near_its_document(encoder: Encoder) -> None:
    """A query gets one unit vector, nearest to the document that answers it."""
    query = encoder.encode_query("boat leaving port")
    assert query.shape == (encoder.dimension,)
    assert int((first(encoder.encode(TEXTS)) @ query).argmax()) in {0, 4}


def test_nothing_to_encode(encoder: Encoder) -> None:
    """No texts give no encodings, and no call."""
    assert encoder.encode([]) == []


def test_calls_keep_the_limit_and_are_told(minilm: Bundle) -> None:
    """Calls keep to `batch_tokens`, and the hook hears of each with its tokens and padding."""
    told: list[tuple[int, int, int, float]] = []
    recorder = Recorder(open_runtime(minilm, ("onnxruntime", "fp32")))
    small = Encoder(
        minilm,
        recorder,
        CostModel(0.002, 0.0002),
        batch_tokens=64,
        on_inference=lambda *call: told.append(call),
    )
    encoded = small.encode(TEXTS)
    assert all(rows == 1 or rows * tokens <= 64 for rows, tokens in recorder.shapes)
    assert sum(rows for rows, _, _, _ in told) == len(TEXTS)
    assert sum(tokens for _, tokens, _, _ in told) == sum(text.tokens for text in encoded)
    assert [padded for _, _, padded, _ in told] == [rows * row for rows, row in recorder.shapes]
    assert all(seconds > 0 for _, _, _, seconds in told)


@pytest.mark.parametrize("candidate", [("onnxruntime", "fp32"), ("openvino", "fp32")])
def test_two_threads_share_an_encoder(minilm: Bundle, candidate: tuple[str, str]) -> None:
    """Two threads that encode at once get what one gets alone."""
    if candidate[0] == "openvino":
        pytest.importorskip("openvino")
    shared = Encoder(minilm, open_runtime(minilm, candidate), CostModel(0.002, 0.0002))
    texts = [TEXTS[:3], TEXTS[4:]]
    expected = [first(shared.encode(own)) for own in texts]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            found = list(pool.map(shared.encode, texts))
            for got, wanted in zip(found, expected, strict=True):
                np.testing.assert_allclose(first(got), wanted, atol=1e-5)


def test_padding() -> None:
    """Rows are filled on the right with the model's own padding token, and masked there."""
    ids, mask = pad([[5, 6, 7], [8], []], pad_id=1)
    assert ids.tolist() == [[5, 6, 7], [8, 1, 1], [1, 1, 1]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert ids.dtype == mask.dtype == np.int64
