"""Field types: what a field may hold, and how a value that it may not is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stream_ml as sml
from stream_ml.errors import BadRecord, DeclarationError
from stream_ml.schema import FieldType, brief, field_type
from tests.shop import shop


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


RANGED = {
    "refused": sml.Range(0, 1e6),
    "clipped": sml.Range(0, 1e6, outside="clipped"),
    "missing": sml.Range(0, 1e6, outside="missing"),
}


@given(st.sampled_from(sorted(RANGED)), st.floats(-1e12, 1e12) | st.integers(-(10**12), 10**12))
def test_what_lies_outside_of_a_range_is_refused_clipped_or_missing(
    outside: str, value: float
) -> None:
    """A value within is as it is, also on the fast way; one outside becomes what is declared."""
    kind = RANGED[outside]
    if 0 <= value <= 1e6:
        assert float(value) == kind.check("amount", value) == kind.checker()(value)
        return
    assert kind.checker()(value) is None
    if outside == "refused":
        with pytest.raises(BadRecord, match=r"expected float from 0 to 1e\+06, given") as refused:
            kind.check("amount", value)
        assert ("out_of_range", "$.amount") == (refused.value.reason, refused.value.path)
    else:
        expected = {"clipped": 0.0 if value < 0 else 1e6, "missing": None}
        assert expected[outside] == kind.check("amount", value)


def test_one_huge_value_does_not_reach_windows() -> None:
    """An amount of 1e12 among small ones is cut before any window sums it."""
    ranged = replace(
        shop,
        events=replace(
            shop.events,
            fields={**shop.events.fields, "amount": RANGED["clipped"]},
        ),
    )
    members = {"event_id": "e1", "ts": 1, "shop": "ada", "kind": "visit", "amount": 1e12}
    event = ranged.event_codec.decode(orjson.dumps({**members, shop.events.key: "ada"}))
    assert 1e6 == event.fields["amount"]


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (sml.Range(5, 5), "a lower and a higher bound"),
        (sml.Range(0, float("inf")), "finite bounds"),
        (sml.Range(0, 1.5, type=int), "whole bounds of whole numbers"),
        (sml.Range(0, 1, type=str), "a Range of float or int"),
        (sml.Range(0, 1, outside="cut"), "outside: one of refused, clipped, missing"),
    ],
)
def test_a_range_that_is_none_is_refused_where_it_is_declared(field: Any, expected: str) -> None:
    """Bounds that are turned round, endless or of another type, and an unknown word."""
    fields = {**shop.events.fields, "size": field}
    with pytest.raises(DeclarationError, match=r"events\.fields\.size") as refused:
        replace(shop, events=replace(shop.events, fields=fields))
    assert expected in str(refused.value)


def test_a_label_has_no_range() -> None:
    """The truth is not cut."""
    with pytest.raises(DeclarationError, match=r"label\.type"):
        replace(shop, label=replace(shop.label, type=sml.Range(0, 1)))
