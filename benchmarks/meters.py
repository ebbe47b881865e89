"""What the flow's own metrics say of a stretch of time."""

from __future__ import annotations

import urllib.request
from collections import defaultdict
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from harness.process import HOST

__all__ = ["Counts", "read", "shares"]

Counts = dict[str, float]
"""Numbers by the names that Prometheus shows."""


_TIMEOUT_S: Final = 5.0
_STAGES: Final = {
    "model": "headrace_inference_latency_ms_sum",
    "transactions": "headrace_record_send_latency_ms_sum",
    "merges": "headrace_upsert_latency_ms_sum",
}
_TOKENS: Final = "headrace_tokens_total"
_PADDED: Final = "headrace_padded_tokens_total"
_CONSUMED: Final = "headrace_records_consumed_total"
_HITS: Final = "headrace_embedding_cache_hits_total"


def read(port: int, processes: int) -> Counts:
    """All counters and sums, added up over processes and labels.

    Raises:
        OSError: A process does not answer.
    """
    found: defaultdict[str, float] = defaultdict(float)
    for number in range(processes):
        url = f"http://{HOST}:{port + number}/metrics"
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            text = answer.read().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.endswith(("_total", "_sum", "_count")):
                    found[sample.name] += sample.value
    return dict(found)


def shares(counted: Counts, worker_s: float) -> dict[str, float]:
    """Shares from what was counted in a stretch of time.

    Args:
        counted: The growth of `read`'s numbers.
        worker_s: Seconds of the stretch, times processes.

    Returns:
        `stage_*`: time in the model, in transactions and in merges, each on a thread of its own;
        `padding`: of the tokens that went through the model; `cache_hits`: of the texts.
    """
    of = defaultdict(float, counted)
    found = {f"stage_{one}": of[name] / 1000 / worker_s for one, name in _STAGES.items()}
    found["padding"] = _share(of[_PADDED] - of[_TOKENS], of[_PADDED])
    found["cache_hits"] = _share(of[_HITS], of[_CONSUMED])
    return found


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
