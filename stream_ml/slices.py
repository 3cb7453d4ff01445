"""Slices: parts of the events that models are scored and judged by, as a user declares them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream_ml.errors import BadRecord, Problem
from stream_ml.features import any_of
from stream_ml.schema import FieldType, is_text, short_repr

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Slice", "SliceBy", "Slicing", "slice_by", "slice_problems", "slice_texts"]

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
# Each has scores of every model, and evidence of every challenger.
SLICES_MAX = 32
TOP_MAX = 16
# Longer values are cut: those that begin alike are one slice.
VALUE_LENGTH_MAX, NAME_LENGTH_MAX = 64, 512
_BY_KINDS = frozenset({"str", "enum", "bool"})


@dataclass(frozen=True, slots=True, init=False)
class Slice:
    """The events whose fields have these values; a tuple (a list, a set) means any of them.

    Args:
        name: of the slice.
        equals: the values by field.

    >>> Slice("abroad", country=("it", "fr")).equals
    {'country': ('it', 'fr')}
    """

    name: str
    equals: dict[str, tuple[Any, ...]]

    def __init__(self, name: str, /, **equals: Any) -> None:
        object.__setattr__(self, "name", name)
        values = {field: any_of(value) for field, value in equals.items()}
        object.__setattr__(self, "equals", values)


@dataclass(frozen=True, slots=True)
class SliceBy:
    """A slice for each of the values of a field: see `slice_by`."""

    field: str
    top: int


def slice_by(field: str, *, top: int = 8) -> SliceBy:
    """A slice for each value of a field, `field=value`, and `field=*` for all others.

    Args:
        field: of type `Enum`, `bool` or `str`.
        top: how many values are slices: of more, those that are the most frequent among the first
            1,000 examples.

    >>> slice_by("country").top
    8
    """
    return SliceBy(field, top)


class Slicing:
    """Tells the slices of an event.

    Args:
        slices: as declared, and checked.
        schema: the declared fields.

    Attributes:
        names: of the slices that are known from the start.
        tops: by field, of how many values the most frequent are slices, where that is learned.
    """

    def __init__(self, slices: Sequence[Slice | SliceBy], schema: Mapping[str, FieldType]) -> None:
        self._conditions = [
            (each.name, tuple(each.equals.items())) for each in slices if isinstance(each, Slice)
        ]
        self._fields = [each.field for each in slices if isinstance(each, SliceBy)]
        self.names = [name for name, _ in self._conditions]
        self.tops: dict[str, int] = {}
        for each in slices:
            if isinstance(each, SliceBy):
                values = _values(schema[each.field])
                if values is None or len(values) > each.top:
                    self.tops[each.field] = each.top
                else:
                    self.names += [value_slice(each.field, value) for value in values]

    def __bool__(self) -> bool:
        return bool(self._conditions or self._fields)

    def of(self, fields: Mapping[str, Any]) -> tuple[str, ...]:
        """The slices that an event is in; of values, all that there are.

        Args:
            fields: of the event.
        """
        found = [
            name
            for name, conditions in self._conditions
            if all(fields[field] in values for field, values in conditions)
        ]
        return (*found, *(value_slice(field, fields[field]) for field in self._fields))


def value_slice(field: str, value: Any) -> str:
    """The name of the slice of a value; null is a value.

    >>> value_slice("country", "it"), value_slice("is_new", None)
    ('country=it', 'is_new=null')
    """
    if value is None or type(value) is bool:
        value = "null" if value is None else str(value).lower()
    # What is longer could not be read again.
    return f"{field}={value[:VALUE_LENGTH_MAX]}"[:NAME_LENGTH_MAX]


def _values(kind: FieldType) -> list[Any] | None:
    """All values that a field may have; None where they are not known."""
    if kind.kind not in {"enum", "bool"}:
        return None
    values: list[Any] = list(kind.categories) if kind.kind == "enum" else [False, True]
    return [*values, None] if kind.optional and kind.default is None else values


def slice_texts(slices: Sequence[Slice | SliceBy]) -> Iterator[tuple[str, str]]:
    """The texts of the declaration by path."""
    for each in slices:
        if isinstance(each, SliceBy):
            yield f"slices.{each.field}=*", f"the {each.top} most frequent values"
        else:
            conditions = (
                f"{field}={'|'.join(sorted(map(repr, values)))}"
                for field, values in sorted(each.equals.items())
            )
            yield f"slices.{each.name}", ", ".join(conditions)


def slice_problems(slices: Any, schema: Mapping[str, FieldType]) -> Iterator[Problem]:
    """The mistakes in what may be declared as slices.

    Args:
        slices: whatever was given.
        schema: the declared fields.
    """
    if isinstance(slices, str) or not isinstance(slices, Sequence):
        expected = 'a list such as [Slice("abroad", country="it"), slice_by("country")]'
        yield Problem("slices", expected, short_repr(slices))
        return
    count, names = 0, set[str]()
    for number, each in enumerate(slices):
        path = f"slices[{number}]"
        if isinstance(each, Slice):
            count += 1
            yield from _condition_problems(path, each, schema)
            name = str(each.name)
        elif isinstance(each, SliceBy):
            yield from _field_problems(path, each, schema)
            count += each.top + 1 if type(each.top) is int else 1
            name = f"{each.field}=*"
        else:
            expected = 'Slice("abroad", country="it") or slice_by("country")'
            yield Problem(path, expected, short_repr(each))
            continue
        if name in names:
            yield Problem(path, "each slice once", short_repr(name))
        names.add(name)
    if count > SLICES_MAX:
        expected = f"at most {SLICES_MAX} slices, of a field's values one more than its top"
        yield Problem("slices", expected, str(count))


def _condition_problems(
    path: str, each: Slice, schema: Mapping[str, FieldType]
) -> Iterator[Problem]:
    name: Any = each.name
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        yield Problem(f"{path}.name", "lower-case letters, digits, - and _", short_repr(name))
    if not each.equals:
        yield Problem(path, "at least one field with its value", "none")
    for field, values in each.equals.items():
        kind = schema.get(field)
        if kind is None:
            expected = f"a field of {', '.join(map(str, schema))}"
            yield Problem(f"{path}.{field}", expected, short_repr(field))
            continue
        if not values:
            yield Problem(f"{path}.{field}", "at least one value", "none")
        for value in values:
            try:
                kind.check(field, value)
            except BadRecord:
                yield Problem(f"{path}.{field}", str(kind), short_repr(value))


def _field_problems(path: str, each: SliceBy, schema: Mapping[str, FieldType]) -> Iterator[Problem]:
    kind = schema.get(each.field) if is_text(each.field) else None
    if kind is None or kind.kind not in _BY_KINDS or "=" in each.field:
        names = [name for name, kind in schema.items() if kind.kind in _BY_KINDS]
        expected = f"a field of type Enum, bool or str: {', '.join(names) or 'there is none'}"
        yield Problem(f"{path}.field", expected, short_repr(each.field))
    if not (type(each.top) is int and 1 <= each.top <= TOP_MAX):
        yield Problem(f"{path}.top", f"a whole number from 1 to {TOP_MAX}", short_repr(each.top))
