from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from operators.documents import Decoder
from operators.poison import GuardedDecoder, GuardedStep
from operators.records import DocumentBatch, Kind, RecordBatch
from operators.views import StockDecoder, ViewDecoder
from tests.samples import LANE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

VALUES = (b'{"text": "a"}', b'{"text": "deadly"}', b"no json", b'{"text": "b"}')
HEADERS = ((), (("event_id", b"e"), ("content-type", b"application/x-protobuf")), (), ())


class Marked:
    """A guard that condemns what it is told to, and notes what is in hand."""

    def __init__(self, *condemned: int) -> None:
        self._condemned = condemned
        self.held: list[RecordBatch] = []
        self.now: list[RecordBatch] = []

    @contextmanager
    def holding(self, batches: Iterable[RecordBatch]) -> Iterator[None]:
        """Note them."""
        self.now = list(batches)
        self.held += self.now
        yield
        self.now = []

    def condemned(self, batch: RecordBatch) -> Collection[int]:
        """The same for every batch."""
        assert len(batch)
        return self._condemned


def batch_of(*values: bytes) -> RecordBatch:
    """Records with these values."""
    places = range(10, 10 + len(values))
    keys = tuple(b"k%d" % place for place in places)
    return RecordBatch(LANE, 10, 10 + len(values), places, places, keys, values, HEADERS)


def test_a_condemned_record_is_not_looked_into() -> None:
    """It becomes a dead letter as it was; the others are decoded as ever."""
    seen: list[RecordBatch] = []

    def decode(batch: RecordBatch) -> DocumentBatch:
        seen.append(batch)
        return Decoder()(batch)

    batch = batch_of(*VALUES)
    found = GuardedDecoder(decode, Marked(1), 900_000)(batch)
    plain = Decoder()(batch)
    assert VALUES[1] not in seen[0].values
    assert found.records is batch
    assert list(found.kinds) == [Kind.UPSERT, Kind.DEAD, Kind.DEAD, Kind.UPSERT]
    assert list(found.ids) == ["k10", "", "", "k13"]
    assert list(found.texts) == ["a", None, None, "b"]
    assert (found.dead[2], found.event_times) == (plain.dead[2], plain.event_times)
    letter = found.dead[1]
    assert (letter.code, letter.original) == ("poison", batch.original(1))


@pytest.mark.parametrize(
    "decode", [Decoder({"price": "float64"}), ViewDecoder(4, 1.0), StockDecoder()]
)
def test_every_decoder(decode: Callable[[RecordBatch], DocumentBatch]) -> None:
    """Whatever the records mean, all columns of a condemned one are those of a dead letter."""
    found = GuardedDecoder(decode, Marked(1), 900_000)(batch_of(*VALUES))
    assert found.dead[1].code == "poison"
    assert (found.kinds[1], found.ids[1], found.texts[1]) == (Kind.DEAD, "", None)
    assert (found.metadata.json[1], found.metadata.rest[1]) == (None, None)
    assert all(column[1] is None for column in found.metadata.typed.values())


def test_one_that_is_too_large_too() -> None:
    """It is refused for its size, since as a whole it would be too large for the topic."""
    found = GuardedDecoder(Decoder(max_record_bytes=14), Marked(1), 14)(batch_of(*VALUES))
    assert found.dead[1].code == "too_large"
    assert found.dead[1].original.value is None


def test_in_hand_while_decoding_and_embedding() -> None:
    """The guard knows of every batch while its records are in hand, and of no nudge."""
    guard = Marked()
    batch, nudge = batch_of(*VALUES), RecordBatch(LANE, 14, 14, nudge=True)

    def decode(batch: RecordBatch) -> DocumentBatch:
        assert guard.now == ([batch] if len(batch) else [])
        return Decoder()(batch)

    decoder = GuardedDecoder(decode, guard, 900_000)
    documents = [decoder(batch), decoder(nudge)]
    assert guard.held == [batch]
    step = GuardedStep(lambda batches: (len(batches), list(guard.now)), guard)
    assert step(documents) == (2, [batch, nudge])
