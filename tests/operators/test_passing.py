from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from operators.mapping import Field, MappedDecoder, Plan
from operators.passing import PassingDecoder
from operators.records import DocumentBatch, Lane, RecordBatch

PLAN = Plan("/t", metadata={"n": Field("/n", "int64")}, only="take")


@dataclass
class Seen:
    """Counts what is passed over."""

    topics: dict[str, int] = field(default_factory=dict)

    def passed_over(self, topic: str, records: int) -> None:
        """So many were."""
        self.topics[topic] = self.topics.get(topic, 0) + records


def batch(values: list[bytes]) -> RecordBatch:
    """Records of one lane, with an offset left out between each two, and headers on some."""
    count = len(values)
    headers = [(("event_id", str(n).encode()),) if n % 2 else () for n in range(count)]
    offsets = range(10, 10 + 2 * count, 2)
    keys = [str(n).encode() for n in range(count)]
    return RecordBatch(Lane("t", 1), 9, 10 + 2 * count, offsets, [5] * count, keys, values, headers)


@given(st.lists(st.sampled_from([b'{"take":1,"t":"x","n":3}', b'{"take":1}', b'{"t":"x"}'])))
def test_passed_over(values: list[bytes]) -> None:
    """What is left is what there was without the others, and the batch joins its neighbours."""
    decoder = MappedDecoder({"n": "int64"}, plan=PLAN)
    seen = Seen()
    records = batch(values)
    found = PassingDecoder(decoder, seen)(records)
    assert (found.records.start, found.records.end) == (records.start, records.end)
    kept = [index for index, value in enumerate(values) if b"take" in value]
    assert list(found.offsets) == [records.offsets[index] for index in kept]
    alone: DocumentBatch = decoder(records)
    for place, index in enumerate(kept):
        assert found.kinds[place] == alone.kinds[index]
        assert found.ids[place] == alone.ids[index]
        assert found.texts[place] == alone.texts[index]
        assert (
            found.metadata.slice(place, place + 1).typed["n"][0] == alone.metadata.typed["n"][index]
        )
        assert found.headers.get(place) == alone.headers.get(index)
        assert found.dead.get(place) == alone.dead.get(index)
        assert found.records.original(place) == records.original(index)
    assert seen.topics == ({"t": len(values) - len(kept)} if len(kept) < len(values) else {})
