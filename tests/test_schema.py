"""Field types: what a field may hold, and how a value that it may not is refused."""

from __future__ import annotations

from typing import Any

import pytest

import stream_ml as sml
from stream_ml.errors import BadRecord
from stream_ml.schema import FieldType, brief, field_type


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        (float, 1.5, 1.5),
        (float, 2, 2.0),
        (float, -(2**53), -(2.0**53)),
        (int, 2**53, 2**53),
        (str, "", ""),
        (str, "x" * 4096, "x" * 4096),
        (bool, False, False),
        (sml.Enum("a", "b"), "b", "b"),
        (sml.Optional[int], None, None),
        (sml.Optional[sml.Enum("a", "b")], "a", "a"),
    ],
)
def test_what_fits_is_taken(type_: Any, value: Any, expected: Any) -> None:
    """A value of the declared type is what features see; whole numbers pass for floats."""
    checked = field_type(type_).check("f", value)

    assert (expected, type(expected)) == (checked, type(checked))


@pytest.mark.parametrize(
    ("type_", "value", "reason"),
    [
        (float, "1.5", "wrong_type"),
        (float, True, "wrong_type"),
        (float, float("nan"), "wrong_type"),
        (float, float("inf"), "wrong_type"),
        (float, 2**53 + 1, "out_of_range"),
        (int, 1.0, "wrong_type"),
        (int, True, "wrong_type"),
        (int, -(2**53) - 1, "out_of_range"),
        (str, 1, "wrong_type"),
        (float, 1.1e30, "out_of_range"),
        (str, "x" * 4097, "too_long"),
        (bool, 1, "wrong_type"),
        (bool, "true", "wrong_type"),
        (sml.Enum("a", "b"), "c", "unknown_category"),
        (sml.Enum("a", "b"), 1, "wrong_type"),
        (float, None, "null"),
        (sml.Optional[int], "1", "wrong_type"),
        (str, {"a": 1}, "wrong_type"),
    ],
)
def test_what_does_not_fit_is_refused(type_: Any, value: Any, reason: str) -> None:
    """Nothing is guessed: no text for a number, no number for a flag, no new category."""
    with pytest.raises(BadRecord) as refused:
        field_type(type_).check("f", value)

    assert (reason, "$.f") == (refused.value.reason, refused.value.path)


def test_types_read_as_they_are_declared() -> None:
    """Messages name a type as its author would."""
    assert "float" == str(field_type(float))
    assert "one of a, b" == str(sml.Enum("a", "b"))
    assert "one of a, b or null" == str(sml.Optional[sml.Enum("a", "b")])


def test_both_ways_to_declare_an_optional_field_agree() -> None:
    """Brackets say it without a default, parentheses with one."""
    assert sml.Optional[float] == sml.Optional(float)
    assert FieldType("float", optional=True, default=0.0) == sml.Optional(float, default=0)


@pytest.mark.parametrize("declared", ["float", list, None, 5, [float]])
def test_anything_else_is_no_type(declared: Any) -> None:
    """A slip in a declaration is told from a type."""
    with pytest.raises(TypeError, match="is no field type"):
        field_type(declared)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "bool True"),
        ([1, 2, 3], "list of 3"),
        ({"a": 1}, "dict of 1"),
        ("x" * 100, "str 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx..."),
    ],
)
def test_a_message_shows_enough_of_a_value_and_no_more(value: Any, text: str) -> None:
    """A message never floods a terminal with what a client sent."""
    assert text == brief(value)
