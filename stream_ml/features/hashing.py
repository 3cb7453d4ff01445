"""Categories without a list: hashed columns, crosses of fields, and buckets of numbers.

A category is a column of a declared number of them, which a hash of its text chooses, and the
value there is 1 or -1, which another part of the hash chooses: what collides cancels on average
(Weinberger et al. 2009, "Feature hashing for large scale multitask learning", ICML). The hash is
BLAKE2b (RFC 7693) with parameters that never change: the same on every machine and in every
process.
"""

# ruff: noqa: ARG001, ARG002, D102 - an `Emit`; an override is documented where it is declared

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from stream_ml.features.sparse import common_name
from stream_ml.features.transforms import (
    CalendarNumber,
    Columns,
    Emit,
    Feature,
    FeatureContext,
    Formula,
    Mistake,
    Scalar,
    Schema,
    as_scalar,
    field_mistakes,
    is_number,
    source_description,
    source_mistakes,
    source_name,
)
from stream_ml.schema import brief

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Hashed", "bucketed", "cross", "hashed"]

WIDTH_MAX = 1 << 20
SOURCES_MAX = 8
CATEGORY_KINDS = ("str", "int", "bool", "enum")
_PERSON = b"stream_ml hashed"
# Of the digest: the column by seven bytes, whose remainder is as good as even, the sign by one.
_DIGEST_BYTES = 8


@dataclass(frozen=True, slots=True)
class Buckets(Formula):
    """Which bucket a number lies in."""

    def mistakes(self, schema: Schema) -> Iterator[Mistake]:
        for source in self.sources:
            yield from source_mistakes(source, schema)
        bounds = self.constants
        if not bounds or not all(map(is_number, bounds)) or list(bounds) != sorted(set(bounds)):
            yield "finite numbers as bounds, in ascending order", brief(list(bounds))
        yield from self.fill_mistakes()


def _bucket(x: float, *bounds: float) -> float:
    return float(bisect_right(bounds, x))


def bucketed(source: str | Scalar, bounds: Sequence[float], *, fill: float | None = None) -> Scalar:
    """How many of the bounds a number has reached: 0 below the first one.

    >>> bucketed("amount", (10, 100)).name
    'bucketed(amount, 10, 100)'

    Args:
        source: a numeric field's name, or a feature of one number.
        bounds: ascending; a number that is equal to one lies above it.
        fill: stands in where the source is missing.
    """
    limits = tuple(bounds) if isinstance(bounds, list | tuple) else (bounds,)
    return Buckets("bucketed", (as_scalar(source),), _bucket, limits, fill=fill)


@dataclass(slots=True)
class _OwnFields:
    """What a feature is compiled against that needs no window."""

    schema: Schema

    def slot(self, feature: Any) -> int:
        raise AssertionError(feature)


@dataclass(frozen=True, slots=True)
class Hashed(Columns):
    """A column for all categories that a hash puts there.

    Args:
        sources: names of fields with categories, or features that are whole numbers.
        width: how many columns.
        word: how it was declared.
    """

    sources: tuple[Any, ...]
    width: int
    word: str

    @property
    def auto_name(self) -> str:
        names = ", ".join(map(source_name, self.sources))
        return names if self.word == "hashed" else f"{self.word}({names})"

    def columns(self, schema: Schema) -> tuple[str, ...]:
        return (common_name(self.name, self.width),)

    def mistakes(self, schema: Schema) -> Iterator[Mistake]:
        if self.word == "cross" and not 1 < len(self.sources) <= SOURCES_MAX:
            yield f"from 2 to {SOURCES_MAX} fields to cross", str(len(self.sources))
        for source in self.sources:
            yield from _category_mistakes(source, schema)
        if type(self.width) is not int or not 1 < self.width <= WIDTH_MAX:
            yield f"a whole number from 2 to {WIDTH_MAX} as `width`", brief(self.width)

    def describe(self) -> list[Any]:
        sources = [
            ["raw", source] if isinstance(source, str) else source_description(source)
            for source in self.sources
        ]
        return [self.word, sources, self.width]

    def compile_columns(self, schema: Schema) -> Emit:
        context = _OwnFields(schema)
        readers = tuple(_reader(source, context) for source in self.sources)
        prefix, width = f"{self.name}#", self.width

        def emit(fields: Mapping[str, Any], t: int, output: dict[str, float]) -> None:
            parts = []
            for read in readers:
                part = read(fields, t)
                if part is None:
                    return
                parts.append(part)
            column, sign = _place(parts, width)
            output[f"{prefix}{column}"] = sign

        return emit


def _category_mistakes(source: Any, schema: Schema) -> Iterator[Mistake]:
    if isinstance(source, CalendarNumber | Buckets):
        yield from source_mistakes(source, schema)
        if not source.is_own() or source.may_raise():
            yield "a number of the event's own fields", f"`{source.name}`"
    elif isinstance(source, str):
        unknown = list(field_mistakes(source, schema))
        yield from unknown
        if not unknown and schema[source].kind not in CATEGORY_KINDS:
            yield (
                "a field with categories, or `bucketed(...)` of a number",
                f"`{source}`, which is {schema[source]}",
            )
    else:
        given = f"`{source.name}`" if isinstance(source, Feature) else brief(source)
        yield "a field's name, `bucketed(...)`, `hour_of_day()` or `weekday()`", given


def _reader(
    source: Any, context: FeatureContext
) -> Callable[[Mapping[str, Any], int], bytes | None]:
    """Reads a category as bytes, which differ for different ones; None where it is null."""
    if isinstance(source, str):

        def read_field(fields: Mapping[str, Any], t: int) -> bytes | None:
            value = fields[source]
            # A text may hold half a surrogate pair where it does not come from JSON.
            return None if value is None else str(value).encode("utf-8", "surrogatepass")

        return read_field
    evaluate = source.evaluator(context)

    def read_number(fields: Mapping[str, Any], t: int) -> bytes | None:
        value = evaluate(fields, t, ())
        return None if value is None else repr(float(value)).encode()

    return read_number


def _place(parts: Sequence[bytes], width: int) -> tuple[int, float]:
    """The column and the sign of a category.

    >>> _place([b"a"], 1024) == _place([b"a"], 1024) != _place([b"a", b""], 1024)
    True

    Args:
        parts: what it is made of; how long each is counts too.
        width: how many columns there are.
    """
    data = parts[0]
    if len(parts) > 1:
        data = b"".join(part for each in parts for part in (len(each).to_bytes(4), each))
    digest = blake2b(data, digest_size=_DIGEST_BYTES, person=_PERSON).digest()
    return int.from_bytes(digest[1:]) % width, 1.0 if digest[0] & 1 else -1.0


def hashed(field: str, width: int) -> Feature:
    """A column, of `width` of them, for each category of a field, with 1 or -1 in it.

    It takes any category, without a list. An event has its one column alone, such as
    `merchant#17`; where the field is null, none.

    >>> hashed("merchant", 1024).name
    'merchant'

    Args:
        field: a `str`, `int`, `bool` or `Enum`.
        width: how many columns, up to 2**20; of `n` categories each shares its column with
            about `n / width` others.
    """
    return Hashed((field,), width, "hashed")


def cross(*fields: str | Scalar, width: int) -> Feature:
    """As `hashed`, for each combination of categories; no column where one of them is null.

    >>> cross("origin", "dest", width=4096).name
    'cross(origin, dest)'

    Args:
        fields: from two on: fields as `hashed` takes, `bucketed(...)`, `hour_of_day()` or
            `weekday()`.
        width: how many columns.
    """
    return Hashed(fields, width, "cross")
