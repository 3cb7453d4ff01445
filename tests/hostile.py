"""What hostile or careless clients send: any bytes, and valid records with something done to."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Mapping

NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, 2**63, 2**64, 10**400, -0.0, 5e-324, 1e308]),
    st.floats(),
)
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["nan", "NaN", "1", "true", "\x00", "\ud800", "é", "\U0001d518", "x" * 513, "y" * 5_000]
    ),
)
NESTED = st.sampled_from([[], {}, [1, "a"], {"a": None}, [[[]]], {"a": {"b": [1.5]}}])
VALUES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, NESTED)


def _text(members: Mapping[str, Any]) -> str:
    # Python's own writer, unlike orjson, writes NaN, infinities and huge numbers.
    return json.dumps(members)


@st.composite
def mutated(draw: st.DrawFn, valid: Mapping[str, Any]) -> bytes | None:
    """A valid record with one to three things done to it."""
    members: dict[str, Any] = dict(valid)
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(valid)) | TEXTS)
        if draw(st.booleans()):
            members[name] = draw(VALUES)
        else:
            members.pop(name, None)
    text = _text(members)
    return draw(st.sampled_from(DAMAGES))(text, draw)


def _whole(text: str, _: st.DrawFn) -> bytes:
    return text.encode()


def _cut(text: str, draw: st.DrawFn) -> bytes:
    return text.encode()[: draw(st.integers(0, len(text)))]


def _overwritten(text: str, draw: st.DrawFn) -> bytes:
    value = bytearray(text.encode())
    value[draw(st.integers(0, len(value) - 1))] = draw(st.integers(0, 255))
    return bytes(value)


def _doubled(text: str, draw: st.DrawFn) -> bytes:
    name = draw(st.sampled_from(["event_id", "ts", "label", "amount"]))
    return (text[:-1] + f', "{name}": {json.dumps(draw(VALUES))}}}').encode()


def _nested(text: str, draw: st.DrawFn) -> bytes:
    depth = draw(st.sampled_from([2, 900, 1_100, 20_000]))
    return b'{"deep": ' + b"[" * depth + b"]" * depth + b", " + text.encode()[1:]


def _wrapped(text: str, _: st.DrawFn) -> bytes:
    return f"[{text}]".encode()


def _gone(_: str, __: st.DrawFn) -> None:
    return None


DAMAGES = [_whole, _whole, _whole, _whole, _cut, _overwritten, _doubled, _nested, _wrapped, _gone]


def anything(valid: Mapping[str, Any]) -> st.SearchStrategy[bytes | None]:
    """Any bytes, or a valid record with something done to it."""
    return st.binary(max_size=64) | mutated(valid) | mutated(valid) | mutated(valid)


def is_identifier(value: object) -> bool:
    """Whether `value` can name an event or an entity."""
    return type(value) is str and 1 <= len(value) <= 512


def is_time(value: object) -> bool:
    """Whether `value` is a time."""
    return type(value) is int and 0 <= value <= 2**53


def is_number(value: object) -> bool:
    """Whether `value` is a number that a feature can be computed from."""
    return type(value) is float and math.isfinite(value)
