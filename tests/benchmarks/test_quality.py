"""What the vectors of the table are worth, beside the model's own."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.quality import articles, main, quality_of


def test_better_vectors_have_better_figures() -> None:
    """Vectors that say what people say have the best figures, those of chance hardly any."""
    _, judged = articles()
    # The roots of what people say: their products are the judgements again.
    values, directions = np.linalg.eigh(judged)
    best = quality_of((directions * np.sqrt(values.clip(0))).astype(np.float32), judged)
    chance = quality_of(np.random.default_rng(1).standard_normal((50, 8), np.float32), judged)
    assert best.correlation > 0.95
    assert best.gain > 0.95
    assert abs(chance.correlation) < 0.2
    assert chance.gain < best.gain - 0.3
    assert not chance.near(best)


@pytest.mark.kafka
@pytest.mark.timeout(300)
def test_the_table_is_as_good_as_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    """What a flow has written ranks as sentence-transformers does, to five thousandths."""
    pytest.importorskip("sentence_transformers")
    assert main([]) == 0
    model, table = capsys.readouterr().out.splitlines()
    assert model.startswith("sentence-transformers: rank correlation 0.")
    assert table.endswith("; within 0.005 of it")
