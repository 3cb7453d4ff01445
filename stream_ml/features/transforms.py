"""Features: their base, and those made from an event's own fields and from other features.

A `Feature` gives one or more named numbers per event. Declaring one never raises: mistakes are
found by `FeatureSet.check`, all at once. Missing values are three defined things, which the
field types keep apart before a feature ever sees them, and one rule follows them here:

    ================  ==========================  =============================================
    the record has    the event's field is        a feature of it is
    ================  ==========================  =============================================
    no such field     its `default`, else None    as for that value
    null              None                        left out, or its `fill`; `one_hot`: `name=null`
    unknown category  (`Enum`: a bad record)      `one_hot` of an open `str`: `name=other`
    an empty window   -                           count, sum, distinct: 0; others: left out,
                                                  or their `fill`
    a null `by` field None                        the event is in no group: left out, or `fill`
    ================  ==========================  =============================================

The rule: whatever takes a missing value is itself missing, unless it has a `fill`; a missing
feature is left out of the features, never written as zero. What has no finite answer is missing
too: a ratio over zero, a difference or sum beyond the largest float, a function that gives None,
NaN or infinity. A null value is not counted by the windows over it. A feature's value is always
a finite float.
"""

# ruff: noqa: ARG001, ARG002, ARG005 - what is called alike has one signature, whoever needs it all

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, Protocol, Self

from stream_ml.errors import STOPS, BadRecord, brief_error
from stream_ml.features.durations import DAY_MS, HOUR_MS
from stream_ml.features.time_zones import zone_mistakes, zone_of
from stream_ml.schema import INTEGER_MAX, FieldType, brief, is_text

__all__ = [
    "Evaluator",
    "Feature",
    "FeatureContext",
    "Mistake",
    "Scalar",
    "as_scalar",
    "clip",
    "difference",
    "field",
    "function",
    "hour_of_day",
    "log",
    "one_hot",
    "ratio",
    "weekday",
]

Schema = Mapping[str, FieldType]
# An event's fields, its time, and the answers of the windows (by slot) -> a value.
Evaluator = Callable[[Mapping[str, Any], int, Sequence[float | None]], float | None]
# The same, written into the features under one or more names.
Emit = Callable[[Mapping[str, Any], int, dict[str, float]], None]
# The expected and the actual value, in words; the caller knows the path.
Mistake = tuple[str, str]
Encode = Literal["number", "cycle", "one_hot"]

NUMERIC_KINDS = ("float", "int", "bool")
# A feature is logged with every prediction: a longer list of categories is an identifier.
CATEGORIES_MAX = 1_000


class FeatureContext(Protocol):
    """The schema and the slots that a feature is compiled against."""

    schema: Schema

    def slot(self, feature: Any) -> int:
        """The index of a window feature's answer among the answers."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One or more named numbers per event. `named` gives it a name of your own."""

    label: str | None = dataclass_field(default=None, kw_only=True)

    @property
    def auto_name(self) -> str:
        """The readable name it has if you give none."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """Its name among the features; with several columns, what their names begin with."""
        return self.auto_name if self.label is None else self.label

    def named(self, name: str) -> Self:
        """The same feature under another name.

        >>> log("amount").named("size").name
        'size'
        """
        return replace(self, label=name)

    def label_mistakes(self) -> Iterator[Mistake]:
        """The mistakes in the name that it was given."""
        if self.label is not None and not is_text(self.label):
            yield "a name that is a text", brief(self.label)

    def columns(self, schema: Schema) -> tuple[str, ...]:
        """The names of its numbers."""
        return (self.name,)

    def mistakes(self, schema: Schema) -> Iterator[Mistake]:
        """The mistakes in the declaration, as the events' fields are."""
        raise NotImplementedError

    def describe(self) -> list[Any]:
        """Its computation as JSON values, its name aside: the same for the same feature."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Scalar(Feature):
    """A feature of one number; other features can be made from it."""

    fill: float | None = dataclass_field(default=None, kw_only=True)
    # Whether it is a function of the asking event's own fields.
    is_stateless: ClassVar[bool] = True

    @property
    def inputs(self) -> tuple[Scalar, ...]:
        """The features it is made from."""
        return ()

    def total(self, schema: Schema) -> bool:
        """Whether it has a value for every event."""
        return self.fill is not None

    def evaluator(self, context: FeatureContext) -> Evaluator:
        """The function that computes it."""
        compute, fill = self.compile(context), self.fill
        if fill is None:
            return compute
        fill_value = float(fill)

        def evaluate_filled(
            fields: Mapping[str, Any], t: int, answers: Sequence[float | None]
        ) -> float:
            value = compute(fields, t, answers)
            return fill_value if value is None else value

        return evaluate_filled

    def compile(self, context: FeatureContext) -> Evaluator:
        """The function that computes it, `fill` aside."""
        raise NotImplementedError

    def fill_mistakes(self) -> Iterator[Mistake]:
        """The mistakes in `fill`."""
        if self.fill is not None and not is_number(self.fill):
            yield "a finite number as `fill`", brief(self.fill)

    def may_raise(self) -> bool:
        """Whether a user's function is in it."""
        return any(source.may_raise() for source in self.inputs)

    def is_own(self) -> bool:
        """Whether the event's own fields are all it needs."""
        return self.is_stateless and all(source.is_own() for source in self.inputs)


def is_number(value: Any) -> bool:
    """Whether it is a finite number of Python's own (booleans are not meant)."""
    if type(value) is int:
        return -INTEGER_MAX <= value <= INTEGER_MAX
    return type(value) is float and math.isfinite(value)


def as_scalar(source: Any) -> Any:
    """A field's name stands for the field; anything else is left as it is."""
    return FieldFeature(source) if isinstance(source, str) else source


def source_mistakes(source: Any, schema: Schema) -> Iterator[Mistake]:
    """The mistakes in something another feature is made from.

    Args:
        source: a field's name or a feature; anything else is a mistake.
        schema: the events' fields.
    """
    if isinstance(source, Scalar):
        yield from source.mistakes(schema)
        yield from source.label_mistakes()
    elif isinstance(source, Feature):
        yield "a feature of one number", f"`{source.name}`, which has several"
    else:
        yield "a field's name or a feature", brief(source)


def source_name(source: Any) -> str:
    """How a source is called in a name: a field by its own."""
    return str(source.name if isinstance(source, Feature) else source)


def source_description(source: Any) -> Any:
    """The computation of a source; a wrong one is described by its text, as it is never hashed."""
    return source.describe() if isinstance(source, Feature) else str(source)


def field_mistakes(name: Any, schema: Schema) -> Iterator[Mistake]:
    """Whether the events have this field.

    Args:
        name: as it was declared, of any type.
        schema: the events' fields.
    """
    if not isinstance(name, str) or name not in schema:
        yield f"one of the fields {', '.join(schema)}", brief(name)


@dataclass(frozen=True, slots=True)
class FieldFeature(Scalar):
    """A number that is a field of the event; True is 1 and False 0."""

    field: str

    @property
    def auto_name(self) -> str:
        return str(self.field)

    def mistakes(self, schema: Schema) -> Iterator[Mistake]:
        unknown = list(field_mistakes(self.field, schema))
        yield from unknown
        if not unknown and schema[self.field].kind not in NUMERIC_KINDS:
            yield "a field that is a number", f"`{self.field}`, which is {schema[self.field]}"
        yield from self.fill_mistakes()

    def describe(self) -> list[Any]:
        return ["field", self.field, self.fill]

    def total(self, schema: Schema) -> bool:
        return self.fill is not None or not schema[self.field].optional

    def compile(self, context: FeatureContext) -> Evaluator:
        name = self.field
        if context.schema[name].kind == "float":
            return lambda fields, t, answers: fields[name]

        def number(
            fields: Mapping[str, Any],
            t: int,
            answers: Sequence[float | None],
        ) -> float | None:
            value = fields[name]
            return None if value is None else float(value)

        return number


@dataclass(frozen=True, slots=True)
class Formula(Scalar):
    """A number made from other numbers; missing where one of them is, or where it is not finite."""

    word: str
    sources: tuple[Any, ...]
    compute: Callable[..., float | None]
    constants: tuple[Any, ...] = ()

    @property
    def auto_name(self) -> str:
        parts = [*map(source_name, self.sources), *map(str, self.constants)]
        return f"{self.word}({', '.join(parts)})"

    @property
    def inputs(self) -> tuple[Scalar, ...]:
        return self.sources

    def mistakes(self, schema: Schema) -> Iterator[Mistake]:
        for source in self.sources:
            yield from source_mistakes(source, schema)
        numbers = all(map(is_number, self.constants))
        if not numbers or list(self.constants) != sorted(self.constants):
            yield "two finite numbers, the lower first", ", ".join(map(brief, self.constants))
        yield from self.fill_mistakes()

    def describe(self) -> list[Any]:
        return [
            self.word,
            [source_description(source) for source in self.sources],
            list(self.constants),
            self.fill,
        ]

    def total(self, schema: Schema) -> bool:
        # log and clip of a finite number are finite; ratio and difference may have no answer.
        has_one_source = len(self.sources) == 1
        return self.fill is not None or (has_one_source and bool(self.sources[0].total(schema)))

    def compile(self, context: FeatureContext) -> Evaluator:
        compute, constants = self.compute, self.constants
        if len(self.sources) == 1:
            (evaluate,) = (source.evaluator(context) for source in self.sources)

            def of_one(
                fields: Mapping[str, Any], t: int, answers: Sequence[float | None]
            ) -> float | None:
                x = evaluate(fields, t, answers)
                return None if x is None else compute(x, *constants)

            return of_one
        left, right = (source.evaluator(context) for source in self.sources)

        def of_two(
            fields: Mapping[str, Any], t: int, answers: Sequence[float | None]
        ) -> float | None:
            x, y = left(fields, t, answers), right(fields, t, answers)
            return None if x is None or y is None else compute(x, y)

        return of_two


def _signed_log(x: float) -> float:
    return math.copysign(math.log1p(abs(x)), x)


def _clip(x: float, lo: float, hi: float) -> float:
    return float(min(max(x, lo), hi))


def _ratio(x: float, y: float) -> float | None:
    return finite(x / y) if y else None


def _difference(x: float, y: float) -> float | None:
    return finite(x - y)


def finite(value: float) -> float | None:
    """The value, or None where it is infinite or not a number."""
    return value if math.isfinite(value) else None


def field(name: str, *, fill: float | None = None) -> Scalar:
    """The event's field as it is: a number, or a bool as 0 and 1.

    Args:
        name: the field.
        fill: stands in where the field is None; without it the feature is left out there.
    """
    return FieldFeature(name, fill=fill)


def log(source: str | Scalar, *, fill: float | None = None) -> Scalar:
    """The logarithm of the size with the sign kept: sign(x) times ln(1 + |x|), 0 for 0.

    >>> log("amount").name
    'log(amount)'

    Args:
        source: a numeric field's name, or a feature of one number.
        fill: stands in where the source is missing.
    """
    return Formula("log", (as_scalar(source),), _signed_log, fill=fill)


def clip(source: str | Scalar, lo: float, hi: float, *, fill: float | None = None) -> Scalar:
    """The number, held within [lo, hi].

    >>> clip("dep_delay", -30, 180).name
    'clip(dep_delay, -30, 180)'

    Args:
        source: a numeric field's name, or a feature of one number.
        lo: the smallest value that is let through.
        hi: the largest; not below `lo`.
        fill: stands in where the source is missing.
    """
    return Formula("clip", (as_scalar(source),), _clip, (lo, hi), fill=fill)


def ratio(a: str | Scalar, b: str | Scalar, *, fill: float | None = None) -> Scalar:
    """`a / b`; missing where `b` is zero.

    Args:
        a: a numeric field's name, or a feature of one number.
        b: likewise; what is divided by.
        fill: stands in where `a` or `b` is missing, `b` is 0, or the ratio is not finite.
    """
    return Formula("ratio", (as_scalar(a), as_scalar(b)), _ratio, fill=fill)


def difference(a: str | Scalar, b: str | Scalar, *, fill: float | None = None) -> Scalar:
    """`a - b`.

    Args:
        a: a numeric field's name, or a feature of one number.
        b: likewise; what is taken away.
        fill: stands in where `a` or `b` is missing, or the difference is not finite.
    """
    return Formula("difference", (as_scalar(a), as_scalar(b)), _difference, fill=fill)


@dataclass(frozen=True, slots=True)
class FunctionFeature(Scalar):
    """A user's own pure function of fields."""

    function: Callable[..., float | None]
    fields: tuple[str, ...]
    word: str
    version: int = 1

    @property
    def auto_name(self) -> str:
        return self.word

    def mistakes(self, schema: Schema) -> Iterator[Mistake]:
        if not callable(self.function):
            yield "a function", brief(self.function)
        if not is_text(self.word) or self.word == "<lambda>":
            yield "a `name` for a function that has none", brief(self.word)
        if not self.fields:
            yield "the fields the function takes", "none"
        if type(self.version) is not int or not is_number(self.version):
            yield "an integer `version`", brief(self.version)
        for name in self.fields:
            yield from field_mistakes(name, schema)
        yield from self.fill_mistakes()

    def may_raise(self) -> bool:
        return True

    def describe(self) -> list[Any]:
        # Code cannot be compared; its name and the version its author gives it can.
        return ["function", self.word, list(self.fields), self.version, self.fill]

    def compile(self, context: FeatureContext) -> Evaluator:
        function, names, word = self.function, self.fields, self.word

        def call(
            fields: Mapping[str, Any],
            t: int,
            answers: Sequence[float | None],
        ) -> float | None:
            try:
                value = function(*[fields[name] for name in names])
                return None if value is None else finite(float(value))
            except STOPS:
                raise
            except BaseException as error:
                # An event must not stop a worker, whatever the function makes of it.
                reason = f"{word}({', '.join(names)}) raised {brief_error(error)}"
                raise BadRecord("function_failed", f"$.{names[0]}", reason) from error

        return call


def function(
    fn: Callable[..., float | None],
    *fields: str,
    name: str | None = None,
    version: int = 1,
    fill: float | None = None,
) -> Scalar:
    """Your own function of field values.

    It must be pure: the same values give the same number, always and everywhere. It is given
    None for a null field, and gives a float, or None where it has no answer. Where it raises,
    the event is a bad record (`function_failed`) and becomes a dead letter.

    >>> function(len, "merchant", name="merchant length").name
    'merchant length'

    Args:
        fn: the function.
        fields: the fields whose values it takes, in order.
        name: how the feature is called; by default as the function is.
        version: raise it when the function's answers change, so that a model that has learned
            the former ones is not served the new ones.
        fill: stands in where the function gives None.
    """
    word = getattr(fn, "__name__", "") if name is None else name
    return FunctionFeature(fn, fields, word, version, fill=fill)


@dataclass(frozen=True, slots=True)
class Columns(Feature):
    """A feature of several numbers."""

    def compile_columns(self, schema: Schema) -> Emit:
        """The function that writes them into the features."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class OneHot(Columns):
    """A 0 or 1 per category."""

    field: str
    # Anything that is no tuple is a mistake.
    categories: Any = None

    @property
    def auto_name(self) -> str:
        return str(self.field)

    def vocabulary(self, schema: Schema) -> tuple[Any, ...]:
        """The categories, in order."""
        type_ = schema[self.field]
        if type_.kind == "enum":
            return type_.categories
        if type_.kind == "bool":
            return (False, True)
        return self.categories or ()

    def columns(self, schema: Schema) -> tuple[str, ...]:
        type_ = schema[self.field]
        names = [_category_text(category) for category in self.vocabulary(schema)]
        if type_.kind in ("str", "int"):
            names.append(_apart("other", names))
        if type_.optional:
            names.append(_apart("null", names))
        return tuple(f"{self.name}={name}" for name in names)

    def mistakes(self, schema: Schema) -> Iterator[Mistake]:
        unknown = list(field_mistakes(self.field, schema))
        yield from unknown
        if unknown:
            return
        type_ = schema[self.field]
        if type_.kind in ("enum", "bool"):
            if self.categories is not None:
                yield f"no `categories`, as `{self.field}` is {type_}", brief(self.categories)
            return
        kinds: dict[str, type] = {"str": str, "int": int}
        if type_.kind not in kinds:
            yield "a field with categories", f"`{self.field}`, which is {type_}"
        elif self.categories is None or (
            isinstance(self.categories, tuple) and not self.categories
        ):
            yield f"`categories`, as `{self.field}` is an open {type_}", "none"
        elif isinstance(self.categories, set | frozenset):
            yield "a list or tuple of categories: a set has no order", brief(self.categories)
        elif not isinstance(self.categories, tuple):
            yield "a list or tuple of categories", brief(self.categories)
        elif len(self.categories) > CATEGORIES_MAX:
            yield f"at most {CATEGORIES_MAX} categories", str(len(self.categories))
        else:
            yield from self._category_mistakes(kinds[type_.kind], type_)

    def _category_mistakes(self, kind: type, type_: FieldType) -> Iterator[Mistake]:
        wrong = [category for category in self.categories if type(category) is not kind]
        wrong = wrong or [category for category in self.categories if not _is_category(category)]
        for category in wrong:
            yield f"categories that are {type_.kind}", brief(category)
        if not wrong and len(set(self.categories)) < len(self.categories):
            duplicate = next(
                category for category in self.categories if self.categories.count(category) > 1
            )
            yield "categories that are different", f"{brief(duplicate)} twice"

    def describe(self) -> list[Any]:
        return ["one_hot", self.field, None if self.categories is None else list(self.categories)]

    def compile_columns(self, schema: Schema) -> Emit:
        source = self.field
        columns = self.columns(schema)
        zeros = dict.fromkeys(columns, 0.0)
        column_by_category: dict[Any, str] = dict(
            zip(self.vocabulary(schema), columns, strict=False)
        )
        if schema[source].optional:
            column_by_category[None] = columns[-1]
        # Only an open vocabulary has a column for what is not among the categories, behind them; a
        # closed one never misses.
        other_column = columns[min(len(self.vocabulary(schema)), len(columns) - 1)]

        def emit(fields: Mapping[str, Any], t: int, output: dict[str, float]) -> None:
            output.update(zeros)
            output[column_by_category.get(fields[source], other_column)] = 1.0

        return emit


def _apart(word: str, names: list[str]) -> str:
    """A word of ours for a column, told from a category of that name."""
    while word in names:
        word = f"({word})"
    return word


def _is_category(value: Any) -> bool:
    return is_number(value) or value == "" or is_text(value)


def _category_text(category: Any) -> str:
    return str(category).lower() if isinstance(category, bool) else str(category)


def one_hot(field: str, categories: Sequence[Any] | None = None) -> Feature:
    """A column per category of a field: 1 for the one it has, 0 for all others.

    Zeros are always there: a 1 that is only ever present has no variance, and a scaler makes
    nothing of it. An `Enum` or `bool` field knows its categories; a `str` or `int` field needs
    them, and gets a column `field=other` for what is not among them. An optional field has a
    column `field=null`.

    Args:
        field: the field.
        categories: the categories of a `str` or `int` field.
    """
    if isinstance(categories, str):
        # Most likely a mistake, and would otherwise be taken letter by letter.
        return OneHot(field, (categories,))
    return OneHot(field, tuple(categories) if isinstance(categories, list) else categories)


@dataclass(frozen=True, slots=True)
class _Clock:
    """A number of the calendar: in UTC it is `(t // unit_ms + offset) % size`."""

    word: str
    unit_ms: int
    offset: int
    size: int
    local: Callable[[datetime], int]


HOUR = _Clock("hour_of_day", HOUR_MS, 0, 24, lambda moment: moment.hour)
# The epoch was a Thursday; Monday is 0.
WEEKDAY = _Clock("weekday", DAY_MS, 3, 7, lambda moment: moment.weekday())


def _reader(clock: _Clock, tz: str) -> Callable[[int], int]:
    if tz == "UTC":
        unit_ms, offset, size = clock.unit_ms, clock.offset, clock.size
        return lambda t: (t // unit_ms + offset) % size
    zone, local = zone_of(tz), clock.local

    def read(t: int) -> int:
        try:
            return local(datetime.fromtimestamp(t // 1000, UTC).astimezone(zone))
        except (OverflowError, ValueError, OSError):
            raise BadRecord("time_out_of_range", "$.ts", f"no calendar has {t}") from None

    return read


def _calendar_name(clock: _Clock, tz: str) -> str:
    return clock.word if is_text(tz) and tz == "UTC" else f"{clock.word} {tz}"


@dataclass(frozen=True, slots=True)
class CalendarNumber(Scalar):
    """A number of the calendar as it is."""

    clock: _Clock
    tz: str

    @property
    def auto_name(self) -> str:
        return _calendar_name(self.clock, self.tz)

    def mistakes(self, schema: Schema) -> Iterator[Mistake]:
        yield from zone_mistakes(self.tz)

    def describe(self) -> list[Any]:
        return [self.clock.word, self.tz, "number"]

    def total(self, schema: Schema) -> bool:
        return True

    def compile(self, context: FeatureContext) -> Evaluator:
        if self.tz == "UTC":
            unit_ms, offset, size = self.clock.unit_ms, self.clock.offset, self.clock.size
            return lambda fields, t, answers: float((t // unit_ms + offset) % size)
        read = _reader(self.clock, self.tz)
        return lambda fields, t, answers: float(read(t))


@dataclass(frozen=True, slots=True)
class CalendarColumns(Columns):
    """A number of the calendar as a point on a circle, or one 0 or 1 for each."""

    clock: _Clock
    tz: str
    encode: str

    @property
    def auto_name(self) -> str:
        return _calendar_name(self.clock, self.tz)

    def columns(self, schema: Schema) -> tuple[str, ...]:
        if self.encode == "cycle":
            return (f"{self.name} sin", f"{self.name} cos")
        return tuple(f"{self.name}={number}" for number in range(self.clock.size))

    def mistakes(self, schema: Schema) -> Iterator[Mistake]:
        if not is_text(self.encode) or self.encode not in ("cycle", "one_hot"):
            yield "`encode` to be number, cycle or one_hot", brief(self.encode)
        yield from zone_mistakes(self.tz)

    def describe(self) -> list[Any]:
        return [self.clock.word, self.tz, self.encode]

    def compile_columns(self, schema: Schema) -> Emit:
        read = _reader(self.clock, self.tz)
        columns = self.columns(schema)
        rows = [
            dict(zip(columns, self._row(number), strict=True)) for number in range(self.clock.size)
        ]

        def emit(fields: Mapping[str, Any], t: int, output: dict[str, float]) -> None:
            output.update(rows[read(t)])

        return emit

    def _row(self, number: int) -> list[float]:
        if self.encode == "cycle":
            angle = 2 * math.pi * number / self.clock.size
            return [math.sin(angle), math.cos(angle)]
        return [float(number == column) for column in range(self.clock.size)]


def _calendar(clock: _Clock, tz: str, encode: str) -> Feature:
    if is_text(encode) and encode == "number":
        return CalendarNumber(clock, tz)
    return CalendarColumns(clock, tz, encode)


def hour_of_day(tz: str = "UTC", encode: Encode = "number") -> Feature:
    """The hour of the event's time, 0 to 23.

    Args:
        tz: the time zone whose clocks are read.
        encode: `number`; `cycle` (two columns, the hour as a point on a circle, so that 23 is
            next to 0); or `one_hot` (24 columns).
    """
    return _calendar(HOUR, tz, encode)


def weekday(tz: str = "UTC", encode: Encode = "number") -> Feature:
    """The day of the week of the event's time, Monday 0 to Sunday 6; as `hour_of_day`.

    Args:
        tz: the time zone whose calendar is read.
        encode: `number`; `cycle` (two columns, so that Sunday is next to Monday); or `one_hot` (7).
    """
    return _calendar(WEEKDAY, tz, encode)
