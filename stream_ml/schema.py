"""The types of an event's fields: declared once, checked on every record from outside.

Three things that a careless reader takes for one are kept apart:

- *absent*: the record does not have the field. A required field absent is a bad record; an
  optional one takes its `default`, or None.
- *null*: the record says `null`. Allowed for optional fields only, and always None: a default
  stands in for silence, never for an explicit "nothing".
- *unknown category*: a string outside an `Enum`. A bad record; an open vocabulary is a `str`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from stream_ml.errors import BadRecord, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "BRIEF_LENGTH_MAX",
    "FLOAT_NEAR",
    "OUTSIDE",
    "Enum",
    "FieldType",
    "NumberRange",
    "Optional",
    "Range",
    "brief",
    "field_type",
    "is_finite_number",
    "is_text",
    "is_whole_number",
    "range_problems",
    "short_repr",
]

# What becomes of an event with a number outside of its field's range.
OUTSIDE = ("refused", "clipped", "missing")
Kind = Literal["float", "int", "str", "bool", "enum"]

# Longer strings are data, not categories or identifiers; they would also be logged with each
# prediction. Kafka's own default limit for a whole record is 1 MiB.
TEXT_LENGTH_MAX = 4096
# Past 2**53 a JSON number no longer survives a reader that decodes to doubles (RFC 8259, 6).
INTEGER_MAX = 2**53
# From here on a parser that knows 64 bits gives a float for an integer: a float this large may have
# been either, which its text alone tells.
FLOAT_NEAR = 2.0**63
# No measurement is larger, and what windows and models square, twice over, must stay finite
# (measured: with 1e50 a tree gives up, and its line with it).
NUMBER_MAX = 1e30
_SURROGATE = re.compile("[\ud800-\udfff]")
# Messages show so much of a value: enough to recognise it, too little to flood a terminal.
BRIEF_LENGTH_MAX = 40


@dataclass(frozen=True, slots=True)
class NumberRange:
    """Which numbers a field may have, and what becomes of others. Users write `Range`."""

    low: float
    high: float
    outside: str

    def __str__(self) -> str:
        return f"from {self.low:g} to {self.high:g}"

    def declaration(self) -> str:
        """How one declares it, as text that is equal for equal ranges.

        >>> NumberRange(0, 10.0, "clipped").declaration()
        "Range(0.0, 10.0, outside='clipped')"
        """
        return f"Range({float(self.low)!r}, {float(self.high)!r}, outside={self.outside!r})"


@dataclass(frozen=True, slots=True)
class FieldType:
    """The type of a field: `float`, `int`, `str`, `bool`, `Enum`, `Optional` or `Range`."""

    kind: Kind
    categories: tuple[str, ...] = ()
    optional: bool = False
    default: Any = None
    range: NumberRange | None = None

    def __str__(self) -> str:
        text = (
            f"one of {', '.join(map(str, self.categories))}" if self.kind == "enum" else self.kind
        )
        if self.range is not None:
            text = f"{text} {self.range}"
        return f"{text} or null" if self.optional else text

    def declaration(self) -> str:
        """How one declares it, as text that is equal for equal types.

        >>> Optional(Enum("red", "green")).declaration()
        "Optional(Enum('red', 'green'))"
        """
        inner = (
            f"Enum({', '.join(map(repr, self.categories))})" if self.kind == "enum" else self.kind
        )
        if not self.optional:
            return inner
        default = "" if self.default is None else f", default={self.default!r}"
        return f"Optional({inner}{default})"

    def check(self, name: str, value: Any) -> Any:
        """The value as features see it.

        Args:
            name: of the field, for the path in the error.
            value: as JSON decodes to it.

        Raises:
            BadRecord: the value is not of this type.
        """
        if value is None:
            if self.optional:
                return None
            raise BadRecord("null", f"$.{name}", f"expected {self}, given null")
        field_value = _CHECKS[self.kind](self.categories, value)
        if field_value is None:
            raise self._bad_record(name, value)
        if self.range is None or self.range.low <= field_value <= self.range.high:
            return field_value
        return self._outside(name, field_value, self.range)

    def _outside(self, name: str, value: Any, bounds: NumberRange) -> Any:
        if bounds.outside == "missing":
            return None
        if bounds.outside == "clipped":
            bound = bounds.low if value < bounds.low else bounds.high
            return type(value)(bound)
        raise BadRecord("out_of_range", f"$.{name}", f"expected {self}, given {brief(value)}")

    def checker(self) -> Callable[[Any], Any]:
        """A function that gives a value as features see it, or None where it takes a closer look.

        A value is looked at closer where it is null, not of this type, or a float so large that
        it may have been written as an integer.
        """
        check = partial(_near if self.kind == "float" else _CHECKS[self.kind], self.categories)
        if self.range is None:
            return check
        return partial(_within, check, self.range.low, self.range.high)

    def _bad_record(self, name: str, value: Any) -> BadRecord:
        expected, reason = str(self), "wrong_type"
        if self.kind == "enum" and type(value) is str:
            reason = "unknown_category"
        elif self.kind == "str" and type(value) is str:
            expected, reason = f"at most {TEXT_LENGTH_MAX} characters", "too_long"
        elif type(value) is int and self.kind in {"int", "float"}:
            expected, reason = f"{self} within ±2^53", "out_of_range"
        elif type(value) is float and self.kind == "float" and math.isfinite(value):
            expected, reason = f"{self} within ±{NUMBER_MAX}", "out_of_range"
        return BadRecord(reason, f"$.{name}", f"expected {expected}, given {brief(value)}")


def _float(_: tuple[str, ...], value: Any) -> float | None:
    if type(value) is float:
        # NaN is within no bounds.
        return value if -NUMBER_MAX <= value <= NUMBER_MAX else None
    if type(value) is int and -INTEGER_MAX <= value <= INTEGER_MAX:
        return float(value)
    return None


def _near(_: tuple[str, ...], value: Any) -> float | None:
    if type(value) is float:
        return value if -FLOAT_NEAR < value < FLOAT_NEAR else None
    return _float(_, value)


def _within(check: Callable[[Any], Any], low: float, high: float, value: Any) -> Any:
    number = check(value)
    return number if number is not None and low <= number <= high else None


def _int(_: tuple[str, ...], value: Any) -> int | None:
    return value if type(value) is int and -INTEGER_MAX <= value <= INTEGER_MAX else None


def _str(_: tuple[str, ...], value: Any) -> str | None:
    return value if type(value) is str and len(value) <= TEXT_LENGTH_MAX else None


def _bool(_: tuple[str, ...], value: Any) -> bool | None:
    return value if type(value) is bool else None


def _enum(categories: tuple[str, ...], value: Any) -> str | None:
    return value if type(value) is str and value in categories else None


# Each gives the value as features see it, or None where it is of another type.
_CHECKS: dict[Kind, Callable[[tuple[str, ...], Any], Any]] = {
    "float": _float,
    "int": _int,
    "str": _str,
    "bool": _bool,
    "enum": _enum,
}


def brief(value: Any) -> str:
    """The value as a message shows it: short, whatever came.

    >>> brief("x" * 100)
    "str 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx..."
    >>> brief(None)
    'null'
    """
    if value is None:
        return "null"
    if isinstance(value, dict | list):
        return f"{type(value).__name__} of {len(value)}"
    return f"{type(value).__name__} {short_repr(value, BRIEF_LENGTH_MAX)}"


def short_repr(value: Any, length_max: int = 120) -> str:
    """The value as Python writes it, up to a length, whatever it is.

    >>> short_repr("x" * 100, 8)
    "'xxxxxxx..."

    Args:
        value: anything.
        length_max: in characters; what is longer is cut, and ends in `...`.
    """
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - an object of a user's, which may raise anything
        return "what cannot be shown"
    return text if len(text) <= length_max else text[:length_max] + "..."


def is_whole_number(value: Any) -> bool:
    """Whether it is a whole number that every reader of JSON can hold."""
    return type(value) is int and abs(value) <= INTEGER_MAX


def is_finite_number(value: Any) -> bool:
    """Whether it is a finite number of Python's own, and no flag."""
    return is_whole_number(value) or (type(value) is float and math.isfinite(value))


def is_text(value: Any) -> bool:
    """Whether it is a text that is not empty, and that UTF-8 can hold.

    >>> is_text("a"), is_text(""), is_text(5), is_text(chr(0xD800))
    (True, False, False, False)
    """
    return type(value) is str and bool(value) and not _SURROGATE.search(value)


def Enum(*categories: str) -> FieldType:  # noqa: N802 - reads as a type where it is declared
    """One of a closed set of strings; anything else makes the record bad.

    >>> str(Enum("red", "green"))
    'one of red, green'
    """
    return FieldType("enum", categories)


@dataclass(frozen=True, slots=True)
class _NoType:
    """A value that was declared optional, and is no type."""

    value: Any

    def __repr__(self) -> str:
        return f"Optional[{short_repr(self.value)}]"


class _Optional:
    """The class of `Optional`: a type checker takes a class with `[...]` for a generic one."""

    def __call__(self, type_: Any, default: Any = None) -> FieldType:
        try:
            inner = field_type(type_)
        except TypeError:
            # Declaring never raises: it is found where the whole is looked at.
            return _NoType(type_)  # type: ignore[return-value]  # it is none, and refused as such
        if inner.kind == "float" and type(default) is int:
            default = float(default)  # as a value from outside would be
        return replace(inner, optional=True, default=default)

    def __getitem__(self, type_: Any) -> FieldType:
        return self(type_)


# A field that may be absent or null: `Optional[float]`, or `Optional(float, default=0.0)`.
Optional = _Optional()


def Range(  # noqa: N802 - reads as the type that it stands for
    low: float,
    high: float,
    *,
    type: Any = float,  # noqa: A002 - as above
    outside: str = "refused",
) -> FieldType:
    """A number within bounds, and what becomes of an event with another one.

    One value of 1e12 in a window or a learner may spoil what they say of all others.

    Args:
        low: the least number that is possible.
        high: the greatest one.
        type: `float` or `int`.
        outside: `refused`: the event becomes a dead letter; `clipped`: the nearest bound is taken;
            `missing`: it counts as null, and the field as one that may be.
    """
    kind: Kind = "int" if type is int else "float" if type is float else "str"
    bounds = NumberRange(low, high, outside)
    return FieldType(kind, optional=outside == "missing", range=bounds)


def range_problems(path: str, kind: FieldType) -> Iterator[Problem]:
    """The mistakes in the range of a field.

    Args:
        path: of the field in the declaration.
        kind: its type, which has a range.
    """
    bounds = kind.range
    assert bounds is not None, "a field without a range has no mistakes in it"
    if kind.kind not in {"float", "int"}:
        yield Problem(path, "a Range of float or int", "another type")
    numbers = (bounds.low, bounds.high)
    if not all(type(n) in {int, float} and math.isfinite(n) for n in numbers):
        yield Problem(path, "finite bounds", short_repr(numbers))
    elif not bounds.low < bounds.high:
        yield Problem(path, "a lower and a higher bound", short_repr(numbers))
    elif kind.kind == "int" and any(n != int(n) for n in numbers):
        yield Problem(path, "whole bounds of whole numbers", short_repr(numbers))
    if bounds.outside not in OUTSIDE:
        yield Problem(path, f"outside: one of {', '.join(OUTSIDE)}", short_repr(bounds.outside))


def field_type(declaration: Any) -> FieldType:
    """The field type behind what a user wrote.

    Raises:
        TypeError: it is no field type.
    """
    if isinstance(declaration, FieldType):
        return declaration
    kinds: dict[Any, Kind] = {float: "float", int: "int", str: "str", bool: "bool"}
    try:
        return FieldType(kinds[declaration])
    except (KeyError, TypeError):
        raise TypeError(f"{short_repr(declaration)} is no field type") from None
