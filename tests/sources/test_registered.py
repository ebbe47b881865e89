from __future__ import annotations

import math
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

import pytest

from clients.registry import Registry
from operators.documents import Decoder
from operators.judging import Rejected
from operators.mapping import MappedDecoder, Plan
from operators.records import Kind, Lane, RecordBatch
from sources.registered import RegisteredValues
from tests.registries import (
    AT,
    AT_MS,
    KEY_AVRO,
    NOTE_AVRO,
    NOTE_JSON,
    PLACE_JSON,
    SAMPLES,
    Offline,
    Shelf,
    framed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.registry import Registry as Server
    from operators.records import Document


@pytest.fixture(scope="module")
def shelf(registry: Server) -> Iterator[Shelf]:
    """Subjects of these tests' own."""
    with closing(Shelf(registry)) as own:
        yield own


@pytest.fixture(scope="module")
def values(registry: Server) -> Iterator[RegisteredValues]:
    """Values under the registry, with keys that are text."""
    with closing(Registry(registry.url)) as own:
        yield RegisteredValues(own)


@pytest.fixture(scope="module")
def keyed(values: RegisteredValues) -> RegisteredValues:
    """The same, with keys that are written by a schema, too."""
    return RegisteredValues(values.registry, keys=True)


def decoded(values: RegisteredValues, value: bytes | None, key: bytes | None = b"a") -> Document:
    """What becomes of a record of Headrace's own form."""
    return Decoder({"stars": "int64"}, values=values).decode(key, value, (), 7)


def refused(values: RegisteredValues, value: bytes, key: bytes | None = b"a") -> tuple[str, str]:
    """The code and the message of a dead letter."""
    dead = decoded(values, value, key).dead
    assert dead is not None
    return dead.code, dead.message


def test_the_own_form(values: RegisteredValues, shelf: Shelf) -> None:
    """Text, metadata and timestamp are read of every kind of schema, a time by its own type."""
    notes = {name: decoded(values, data) for name, data in shelf.notes().items()}
    assert {one.kind for one in notes.values()} == {Kind.UPSERT}
    assert {name: one.text for name, one in notes.items()} == {
        "avro": "A note in Avro.",
        "avro2": "A note in Avro.",
        "proto": "A note in Protobuf.",
        "json": "A note in JSON.",
    }
    assert {one.rest for one in notes.values()} == {'{"place":{"city":"Ulm"}}'}
    stars = {name: one.typed for name, one in notes.items()}
    assert stars == {"avro": (None,), "avro2": (5,), "proto": (1 << 40,), "json": (None,)}
    times = {name: one.event_time for name, one in notes.items()}
    assert times == {"avro": AT_MS, "avro2": AT_MS, "proto": AT_MS, "json": 7}


def test_samples_are_notes() -> None:
    """What the fuzzer begins with is read, by each kind of schema."""
    values = RegisteredValues(cast("Registry", Offline.made()))
    for number, sample in enumerate(SAMPLES.values(), 1):
        found = decoded(values, framed(number, sample))
        assert (found.text, found.rest) == ("hi", '{"place":{"city":"Ulm"}}')


def test_a_null_is_nothing(values: RegisteredValues, shelf: Shelf) -> None:
    """An optional text that is not set changes the metadata alone; no value deletes."""
    note = {"text": None, "metadata": {"place": None}, "timestamp": AT}
    patch = decoded(values, shelf.avro(NOTE_AVRO, note, [shelf.notes_place()]))
    assert (patch.kind, patch.text, patch.rest) == (Kind.PATCH, None, '{"place":null}')
    assert decoded(values, None).kind is Kind.DELETE


def test_what_is_refused(values: RegisteredValues, shelf: Shelf) -> None:
    """A record that can't be read, or is of another shape, says what is wrong with it."""
    note = shelf.notes()["json"]
    code, told = refused(values, b'{"text": "x"}')
    assert (code, told[:51]) == (
        "bad_schema",
        "the value: is not in the registry's wire format: it",
    )
    code, told = refused(values, framed(987_654, b"x"))
    assert (code, told[:27]) == ("bad_schema", "the value: schema 987654: t")
    assert refused(values, note[:5] + b'{"text": ""}')[0] == "no_text"
    assert refused(values, shelf.avro('{"type": "double"}', math.inf))[0] == "not_finite"
    number = shelf.avro(KEY_AVRO, 7)
    assert refused(values, number) == (
        "bad_schema",
        "the value must be a JSON object, is an integer",
    )


def test_a_mapping(values: RegisteredValues, shelf: Shelf) -> None:
    """A mapping finds its way in what a schema wrote as it does in JSON."""
    plan = Plan("{/text} {/metadata/place/city}", timestamp="/timestamp")
    for data in shelf.notes().values():
        found = MappedDecoder(plan=plan, values=values).decode(b"a", data, (), 7)
        assert found.kind is Kind.UPSERT or "/timestamp" in str(found.dead)
        assert found.dead or str(found.text).endswith(". Ulm")


@pytest.mark.parametrize(
    ("schema", "key", "identity"),
    [(KEY_AVRO, 7, "7"), ('{"type": "string"}', "ä", "ä")],
)
def test_keys(
    keyed: RegisteredValues, shelf: Shelf, schema: str, key: object, identity: str
) -> None:
    """A key that a schema wrote is the id as text, be it one or an integer."""
    note = shelf.notes()["json"]
    assert decoded(keyed, note, shelf.avro(schema, key)).id == identity
    assert decoded(keyed, None, shelf.avro(schema, key)).id == identity


def test_a_place_in_a_key(keyed: RegisteredValues, shelf: Shelf) -> None:
    """A mapping's id may be a field of a key that a schema wrote; else of one that is JSON."""
    plan = Plan("{/text}", "key/text")
    note = shelf.notes()["json"]
    key = shelf.json(NOTE_JSON, {"text": "id"}, [shelf.place("JSON", PLACE_JSON, "place.json")])
    assert MappedDecoder(plan=plan, values=keyed).decode(key, note, (), 7).id == "id"
    plain = RegisteredValues(keyed.registry)
    assert MappedDecoder(plan=plan, values=plain).decode(b'{"text": "x"}', note, (), 7).id == "x"


def test_keys_that_are_none(keyed: RegisteredValues, shelf: Shelf) -> None:
    """A key that is missing, or written otherwise, or no id, is told as the key's fault."""
    notes = shelf.notes()
    assert refused(keyed, notes["json"], None)[0] == "missing_key"
    for key in (b"text", b"", framed(987_654, b"x"), notes["json"]):
        assert refused(keyed, notes["json"], key)[0] == "bad_key"
    with pytest.raises(Rejected):
        keyed.identity(b"text")


def test_schemas_ahead(registry: Server, shelf: Shelf) -> None:
    """All schemas of a batch are fetched before it is read, of keys where those have any."""
    notes = [*shelf.notes().values(), None, b"plain"]
    keys: list[Any] = [shelf.avro(KEY_AVRO, 7), None, b"k", b"", b"k", b"k"]
    batch = RecordBatch(Lane("t", 0), 0, 6, range(6), [0] * 6, keys, notes, [()] * 6)
    for with_keys in (False, True):
        with closing(Registry(registry.url)) as own:
            RegisteredValues(own, with_keys).ahead(batch)
            assert len(own._readers) == 4 + with_keys
