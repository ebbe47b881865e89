"""Inputs that are nearly right: valid samples, changed as accidents and enemies change them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from hypothesis.strategies import SearchStrategy

__all__ = ["accidents", "json_texts", "protobuf"]

DEPTHS: Final = (2, 250, 260, 900, 980, 1020, 1100, 20_000, 100_000)
"""How deep things are nested: around the limits of orjson, Protobuf and Python, and far beyond."""

LENGTHS: Final = (20, 1_000, 4_400, 100_000)

ODD_JSON: Final = (
    *("null", "true", "false", "0", "-0", "-1", "1.5", "1e15", "1e308", "1e309", "-1e999", "NaN"),
    *("Infinity", "-Infinity", "253402300799999", "253402300800000", "1e11", "99999999999.5"),
    *(str(sign * (1 << bits) - 1) for bits in (31, 32, 53, 63, 64, 128) for sign in (1, -1)),
    *('""', '" \\t\\u00a0"', '"\\ud800"', '"\\udfff\\ud800"', '"\\u0000"', '"\\ud83d\\ude00"'),
    *('"ü🙂"', "[]", "{}", "[null]", '{"a":NaN}', '{"a":1,"a":2}', '{"":{}}', "01", "+1", "'a'"),
)

ODD_BYTES: Final = (
    *(b"\x00", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\n"),
    *(b'"', b"\\", b"\\u", b"\\ud800", b",", b":", b"[", b"]", b"{", b"}", b"1e999", b"NaN", b" "),
    # Of Protobuf: endless and too long lengths, numbers of 10 and 11 bytes, groups, field 0.
    *(b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x0a\x01\xff"),
    *(b"\x18" + b"\xff" * 9 + b"\x01", b"\x18" + b"\xff" * 10, b"\x0b", b"\x0c", b"\x0f", b"\x00"),
)


def _nested(first: str, depth: int, last: str) -> str:
    return first * depth + "1" + last * depth


_deep: Final = st.builds(
    lambda pair, depth: _nested(pair[0], depth, pair[1]),
    st.sampled_from([("[", "]"), ('{"a":', "}"), ("[", ""), ('[{"a":', "}]")]),
    st.sampled_from(DEPTHS),
)

_long: Final = st.builds(
    lambda piece, times, ends: ends[0] + piece * times + ends[1],
    st.sampled_from(["1", "a", "ü", "\\u0001", "1,", "🙂"]),
    st.sampled_from(LENGTHS),
    st.sampled_from([("", ""), ('"', '"'), ("", "e999"), ("0.", ""), ("[", "1]"), ("1e", "")]),
)

_values: Final[SearchStrategy[str]] = st.one_of(
    st.sampled_from(ODD_JSON),
    st.text(max_size=8).map(json.dumps),
    st.integers().map(str),
    st.floats().map(json.dumps),
    _deep,
    _long,
    st.lists(st.sampled_from(ODD_JSON), max_size=3).map(lambda parts: f"[{','.join(parts)}]"),
)


def json_texts(fields: Sequence[str], samples: Sequence[bytes]) -> SearchStrategy[bytes]:
    """JSON objects: samples with some fields set to anything, twice as well.

    Args:
        fields: Names that mean something to who reads it.
        samples: Valid objects.
    """
    names = st.sampled_from([*fields, *fields, *fields]) | st.text(max_size=4)
    pairs = st.lists(st.tuples(names, _values), max_size=4)
    order = st.booleans()

    def put(sample: bytes, more: list[tuple[str, str]], first: bool) -> bytes:
        inner = sample.strip()[1:-1]
        told = [f"{json.dumps(name)}:{value}".encode() for name, value in more]
        return b"{" + b",".join([*told, inner] if first else [inner, *told]) + b"}"

    return st.builds(put, st.sampled_from(samples), pairs, order)


def protobuf(samples: Sequence[bytes], inner: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    """Messages: samples with further fields behind them, of any number, type and length.

    Args:
        samples: Valid messages.
        inner: What the bytes of a field may hold.
    """
    numbers = st.integers(1, 8) | st.sampled_from([15, 16, 100, 18_999, (1 << 29) - 1])
    varint = st.integers(0, (1 << 64) - 1).map(_varint)
    sized = inner.map(lambda held: _varint(len(held)) + held)
    payloads = (varint, st.binary(min_size=8, max_size=8), sized)
    plain = [
        st.builds(lambda number, held, kind=kind: _varint(number << 3 | kind) + held, numbers, own)
        for kind, own in enumerate(payloads)
    ]
    groups = st.builds(
        lambda number, depth, closed: (
            _varint(number << 3 | 3) * depth + (_varint(number << 3 | 4) * depth if closed else b"")
        ),
        numbers,
        st.sampled_from([1, 99, 101, 20_000, 100_000]),
        st.booleans(),
    )
    more = st.lists(st.one_of(*plain, groups), max_size=3).map(b"".join)
    return st.builds(bytes.__add__, st.sampled_from(samples), more)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def accidents(held: bytes, chance: Random) -> bytes:
    """Bytes with one to three accidents."""
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        held = chance.choice(_ACCIDENTS)(held, chance.randint(0, len(held)), chance)
    return held


def _flip(held: bytes, at: int, chance: Random) -> bytes:
    if at == len(held):
        return held
    return held[:at] + bytes([held[at] ^ 1 << chance.randrange(8)]) + held[at + 1 :]


def _cut(held: bytes, at: int, _: Random) -> bytes:
    return held[:at]


def _drop(held: bytes, at: int, chance: Random) -> bytes:
    return held[:at] + held[at + chance.randint(1, 8) :]


def _odd(held: bytes, at: int, chance: Random) -> bytes:
    return held[:at] + chance.choice(ODD_BYTES) + held[at:]


def _noise(held: bytes, at: int, chance: Random) -> bytes:
    return held[:at] + chance.randbytes(chance.randint(1, 4)) + held[at:]


def _again(held: bytes, at: int, chance: Random) -> bytes:
    """A piece of it once more, somewhere else."""
    piece = held[at : at + chance.randint(1, 40)]
    other = chance.randint(0, len(held))
    return held[:other] + piece + held[other:]


def _repeat(held: bytes, at: int, chance: Random) -> bytes:
    return held[:at] + chance.choice(ODD_BYTES) * chance.choice(LENGTHS) + held[at:]


_ACCIDENTS: Final = (_flip, _flip, _cut, _drop, _odd, _odd, _noise, _again, _again, _repeat)
