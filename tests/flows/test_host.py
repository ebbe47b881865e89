"""What the pipelines of one process share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from flows import host as module
from flows.access import encoder_of, model_source_of
from flows.host import Host, naming
from flows.settings import Settings, load
from harness.process import free_port
from headrace.errors import UsageError
from operators.model import load_encoder
from recovery.health import FlowHealth
from recovery.progress import Board
from recovery.store import Launch
from recovery.watchdog import Watchdog
from sinks.errors import WriterLostError

if TYPE_CHECKING:
    from operators.model import Encoder
    from telemetry.metrics import Metrics


def pipelines(*given: dict[str, Any], **variables: str) -> tuple[Settings, ...]:
    """The settings of some pipelines that use the model as the reference runs it."""
    environ = {
        "PIPELINES": json.dumps(given),
        "MODEL__RUNTIME": "onnxruntime",
        "MODEL__PRECISION": "fp32",
        **variables,
    }
    named = {f"HEADRACE_{name}": value for name, value in environ.items()}
    return load(named, Path("/nonexistent")).each()


def test_equal_models_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One runtime for all pipelines whose models are the same; each is told of its own calls."""
    loaded: list[Settings] = []
    real = encoder_of

    def counted(settings: Settings) -> Encoder:
        loaded.append(settings)
        return real(settings)

    monkeypatch.setattr(module, "encoder_of", counted)
    one, two, three = pipelines(
        {"name": "a"},
        {"name": "b", "model": {"cache_entries": 0}},
        {"name": "c", "model": {"max_tokens": 16}},
    )
    host = Host(Launch(), 3, several=True)
    metrics = [host.metrics(settings, ["table"]) for settings in (one, two, three)]
    encoders = [
        host.encoder(settings, own)
        for settings, own in zip((one, two, three), metrics, strict=True)
    ]
    assert len(loaded) == 2
    assert encoders[0]._runtime is encoders[1]._runtime
    assert encoders[2].max_tokens == 16
    assert encoders[0]._turns is encoders[2]._turns
    encoders[1].encode(["a ship"])
    assert [_calls(own) for own in metrics] == [0, 1, 0]


def _calls(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("headrace_inference_latency_ms_count")


def test_who_shares_makes_the_same_vectors() -> None:
    """An encoder that is shared gives what the one it is of gives."""
    [settings] = pipelines({"name": "a"})
    host = Host(Launch(), 1, several=True)
    shared = host.encoder(settings, host.metrics(settings, ()))
    alone = load_encoder(model_source_of(settings), runtime="onnxruntime", precision="fp32")
    assert (shared.encode_query("a ship") == alone.encode_query("a ship")).all()


def test_probes_speak_of_all() -> None:
    """One pipeline that is not ready makes the process not ready, and is named."""
    port = free_port()
    own = pipelines({"name": "a"}, {"name": "b"}, METRICS__ADDRESS=f"127.0.0.1:{port}")
    host = Host(Launch(), 2, several=True)
    health = {}
    for settings in own:
        board = Board()
        metrics = host.metrics(settings, ["table"])
        health[settings.name] = FlowHealth(
            board, board.sinks, 100, "kafka:9092", Watchdog(), metrics, pipeline=settings.name
        )
    host.serve(own[0].metrics.address, health)
    live = json.loads(_asked(port, "/health/live"))
    assert live["status"] == "ok"
    assert set(live["pipelines"]) == {"a", "b"}
    ready = health["a"].ready().told
    assert json.loads(_asked(port, "/health/ready")) == {
        "status": "not ready",
        "reason": "a: no lane has started; b: no lane has started",
        "pipelines": {"a": ready, "b": ready},
    }
    text = _asked(port, "/metrics")
    assert 'headrace_stalled{pipeline="b"} 0.0' in text
    assert "\nheadrace_cpu_utilization " in text
    for one in health.values():
        one.starts("t/0")
        one.ends("t/0")  # which ends the thread that looks at it


def _asked(port: int, path: str) -> str:
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            text: bytes = answer.read()
    except HTTPError as refused:
        text = refused.read()
    return text.decode()


def test_an_error_says_whose_it_is() -> None:
    """It keeps its kind, and so its exit code; where there are no pipelines it is as it was."""
    with pytest.raises(WriterLostError, match=r"^pipelines\.a: gone$") as told, naming("a"):
        raise WriterLostError("gone")
    assert told.value.exit_code == WriterLostError.exit_code
    with pytest.raises(UsageError, match=r"^table\.name: x$"), naming(""):
        raise UsageError("table.name: x")
