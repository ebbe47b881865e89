from __future__ import annotations

import json
import os
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from flows.settings import Settings
from harness.memory import MIB, Sampler, Usage, bound, large, short, unlike
from operators.documents import Decoder
from operators.records import Kind

LARGEST = 900_000


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30), st.integers(0, 1000))
def test_a_process_is_judged_by_its_peak(samples: list[int], most: int) -> None:
    """It is good while its peak stays under the bound; first and last are means of thirds."""
    usage = Usage("one", 0, samples, max(samples), most)
    assert usage.good == (max(samples) <= most)
    assert min(samples) <= usage.first <= max(samples)
    assert min(samples) <= usage.last <= max(samples)
    assert Usage("flat", 0, samples[:1] * 9, 0, 0).first == samples[0]


@given(st.integers(1, 1000), st.integers(1, 1 << 40))
def test_the_bound_grows_with_what_it_counts(lanes: int, size: int) -> None:
    """More lanes, a larger budget and a larger table never lower it, and each part is counted."""

    def most(lanes: int, size: int, rows: int) -> int:
        settings = Settings.model_validate({"source": {"max_in_flight_bytes": size}})
        return sum(bound(settings, lanes, 384, rows).values())

    assert most(lanes, size, 0) <= most(lanes + 1, size, 0)
    assert most(lanes, size, 0) < most(lanes, size + 1, 0)
    assert most(lanes, size, 49_999) == most(lanes, size, 0) < most(lanes, size, 1_000_000)


def test_the_documents_are_what_they_say() -> None:
    """Large ones are just allowed, short ones repeat, unlike ones don't."""
    decoder = Decoder()
    for number, document in enumerate(large(3)):
        value = json.dumps(document).encode()
        assert LARGEST - 1000 < len(value) < LARGEST
        decoded = decoder.decode(b"doc-%d" % number, value, (), 0)
        assert decoded.kind is Kind.UPSERT
    texts = [document["text"] for document in short(50, distinct=10)]
    assert len(set(texts)) <= 10
    assert len({document["text"] for document in unlike(50)}) == 50


def test_the_sampler_sees_what_a_process_takes() -> None:
    """Memory that is taken while it samples is in the peak, though it was given back since."""
    with Sampler(lambda: [os.getpid()]) as sampler:
        before = sampler.look()[os.getpid()]
        taken = bytearray(b"x") * (300 * MIB)
        time.sleep(1.5)
        del taken
        time.sleep(1.1)
    assert sampler.peaks[os.getpid()] >= before + 290 * MIB
    assert Path("/proc/self/status").exists() or sampler.samples
