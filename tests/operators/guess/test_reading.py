from __future__ import annotations

import json
import struct

import pytest

from harness.debezium import PLAIN, RECORDED, TYPED
from operators.guess import Form, read
from tests.operators.guess.samples import batch, json_batch


@pytest.mark.parametrize("name", [PLAIN, TYPED])
def test_recorded_events_are_rows(name: str) -> None:
    """Of real events of Debezium the rows are taken, with and without their schema."""
    lines = (RECORDED / f"{name}.ndjson").read_text(encoding="utf-8").splitlines()
    told = [one for one in map(json.loads, lines) if one["topic"].endswith(".lines")]
    found = read([batch([(b"k", one["value"] and one["value"].encode()) for one in told])])
    assert found.form is Form.DEBEZIUM
    assert found.rows
    assert all("text" in row.fields for row in found.rows)


def test_no_placeholder_is_seen() -> None:
    """A large value that an event does not carry is not there, rather than a placeholder."""
    lines = (RECORDED / f"{PLAIN}.ndjson").read_text(encoding="utf-8").splitlines()
    told = [one for one in map(json.loads, lines) if one["topic"].endswith(".articles")]
    found = read([batch([(b"k", one["value"] and one["value"].encode()) for one in told])])
    assert found.form is Form.DEBEZIUM
    assert "__debezium" not in str([row.fields for row in found.rows])
    assert any("body" not in row.fields for row in found.rows)


def test_deletions_alone_are_events_too() -> None:
    """A topic whose newest events are deletions is still one of Debezium's."""
    found = read([json_batch({"op": "d", "before": {"id": 1}, "after": None}, None)])
    assert found.form is Form.DEBEZIUM
    assert found.empty == 1


def test_own_form_needs_a_key() -> None:
    """Records of Headrace's form are told from others by their fields and their keys."""
    values = [{"text": "a"}, {"text": "b", "metadata": {"x": 1}}, {"metadata": None}]
    keys = [b"1", b"2", b"3"]
    assert read([json_batch(*values, keys=keys)]).form is Form.OWN
    assert read([json_batch(*values)]).form is Form.JSON
    assert read([json_batch({"text": "a", "more": 1}, keys=[b"1"])]).form is Form.JSON


def test_protobuf_is_own_form() -> None:
    """What says that it is Protobuf is Headrace's form."""
    headers = (("content-type", b"application/x-protobuf"),)
    assert read([batch([(b"1", b"\x0a\x01a")], headers)]).form is Form.OWN


def test_registry() -> None:
    """A zero and a number of four bytes before each value are those of a schema registry."""
    value = struct.pack(">bI", 0, 12) + b"\x02\x08text"
    found = read([batch([(b"1", value), (b"2", value)])])
    assert found.form is Form.REGISTRY
    assert found.schema == 12


def test_unreadable() -> None:
    """What is no JSON object is told, with the fault of the last."""
    found = read([batch([(b"1", b"plain text"), (b"2", b"[1]")])])
    assert found.form is Form.UNREADABLE
    assert "no JSON object" in found.fault
    assert read([batch([(b"1", None)])]).form is Form.UNREADABLE
