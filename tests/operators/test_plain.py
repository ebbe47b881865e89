from __future__ import annotations

import math
from base64 import b64decode
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import pytest
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import BytesValue, DoubleValue, Int64Value
from hypothesis import given
from hypothesis import strategies as st

from clients.registry.protoc import compiled, message_class
from operators.judging import Rejected
from operators.plain import DEEPEST, plain

ALL_PROTO = """
syntax = "proto3";
package all;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/struct.proto";
enum Size { NONE = 0; BIG = 1; }
message All {
  message Inner { int32 number = 1; }
  string text = 1;
  optional string maybe = 2;
  int64 big = 3;
  uint64 huge = 4;
  bytes data = 5;
  Size size = 6;
  repeated Size sizes = 7;
  map<string, Inner> named = 8;
  map<bool, int64> told = 9;
  google.protobuf.Timestamp at = 10;
  google.protobuf.Int64Value wrapped = 11;
  google.protobuf.Struct free = 12;
  oneof one { int32 number = 13; string word = 14; }
  double exact = 15;
  bool on = 16;
  Inner inner = 17;
}
"""
ALL = message_class(compiled(ALL_PROTO, {}), [0])
UNSET = {"text": "", "big": 0, "huge": 0, "data": "", "size": "NONE", "sizes": [], "named": {}}
UNSET |= {"told": {}, "exact": 0.0, "on": False}

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.datetimes()
    | st.datetimes(timezones=st.just(UTC))
    | st.dates()
    | st.times()
    | st.uuids(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "text": st.text(st.characters(codec="utf-8")),
        "maybe": st.text(st.characters(codec="utf-8")),
        "big": st.integers(-(1 << 63), (1 << 63) - 1),
        "huge": st.integers(0, (1 << 64) - 1),
        "data": st.binary(),
        "size": st.integers(0, 3),
        "sizes": st.lists(st.integers(0, 3)),
        "told": st.dictionaries(st.booleans(), st.integers(0, 9)),
        "number": st.integers(0, 9),
        "exact": st.floats(allow_nan=False, allow_infinity=False),
        "on": st.booleans(),
    },
)


def code_of(value: object) -> str:
    """How a value is refused."""
    with pytest.raises(Rejected) as told:
        plain(value)
    return told.value.code


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (b"\xff\x00", "/wA="),
        (Decimal("12.30"), "12.30"),
        (Decimal("1E+30"), "1E+30"),
        (datetime(2026, 1, 2, 3, 4, 5, 6000, tzinfo=UTC), "2026-01-02T03:04:05.006000Z"),
        (
            datetime(2026, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=2))),
            "2026-01-02T03:04:00+02:00",
        ),
        (datetime(2026, 1, 2, 3, 4), "2026-01-02T03:04:00"),  # noqa: DTZ001 - a local time
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4, 5), "03:04:05"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        ({"a": [None, {"b": b""}]}, {"a": [None, {"b": ""}]}),
        (Timestamp(seconds=1), "1970-01-01T00:00:01Z"),
        (Duration(seconds=1, nanos=500_000_000), "1.500s"),
        (Int64Value(value=1 << 60), 1 << 60),
        (BytesValue(value=b"\xff\x00"), "/wA="),
        (json_format.ParseDict({"a": [1, None]}, Struct()), {"a": [1.0, None]}),
    ],
)
def test_forms(value: object, form: object) -> None:
    """Each kind of value has the form that is told of it."""
    assert plain(value) == form


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf], DoubleValue(value=math.nan)])
def test_no_number(value: object) -> None:
    """JSON has no form of what is no finite number."""
    assert code_of(value) == "not_finite"


def test_what_has_no_form() -> None:
    """A value of no kind that deserialisers give, and a message of an unknown kind, are refused."""
    assert code_of(object()) == "bad_schema"
    assert code_of(AnyMessage(type_url="type.example/unknown.Kind", value=b"x")) == "bad_schema"


def test_depth() -> None:
    """So many values may be inside one another, and no more."""

    def nest(levels: int) -> object:
        value: object = 1
        for _ in range(levels):
            value = [value]
        return value

    assert orjson.dumps(plain(nest(DEEPEST)))
    assert code_of(nest(DEEPEST + 2)) == "bad_schema"


@given(VALUES)
def test_json_can_write_all(value: Any) -> None:
    """Whatever Avro's types hold has a form that JSON writes and reads back the same."""
    form = plain(value)
    assert orjson.loads(orjson.dumps(form)) == form
    assert plain(form) == form


@given(st.binary(), st.decimals(allow_nan=False, allow_infinity=False), st.datetimes())
def test_nothing_is_lost(data: bytes, number: Decimal, moment: datetime) -> None:
    """Bytes, digits and times can be had back from their forms."""
    assert b64decode(plain(data)) == data
    assert Decimal(plain(number)).as_tuple() == number.as_tuple()
    assert datetime.fromisoformat(plain(moment)) == moment


def test_unset_fields() -> None:
    """What has no presence has its default; what has and is not set is left out."""
    assert plain(ALL()) == UNSET
    assert plain(ALL(maybe="", number=0)) == {**UNSET, "maybe": "", "number": 0}


def test_a_message() -> None:
    """A message has the names of the schema, its enums theirs, its maps objects."""
    message = ALL(text="x", size=1, sizes=[1, 7], named={"k": {"number": 3}}, told={True: 1 << 60})
    message.at.seconds = 1  # type: ignore[attr-defined]
    message.wrapped.value = 1 << 60  # type: ignore[attr-defined]
    message.inner.SetInParent()  # type: ignore[attr-defined]
    assert plain(message) == {
        **UNSET,
        "text": "x",
        "size": "BIG",
        "sizes": ["BIG", 7],
        "named": {"k": {"number": 3}},
        "told": {"true": 1 << 60},
        "at": "1970-01-01T00:00:01Z",
        "wrapped": 1 << 60,
        "inner": {"number": 0},
    }


@given(MESSAGES)
def test_messages_are_as_in_their_json_mapping(fields: dict[str, Any]) -> None:
    """But for 64-bit integers, which are numbers, a message is as in Protobuf's own mapping."""
    message = ALL(**fields)
    wanted = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    for name in ("big", "huge"):
        wanted[name] = int(wanted[name])
    wanted["told"] = {name: int(number) for name, number in wanted["told"].items()}
    assert plain(message) == wanted
