"""One feature of a window: an aggregate over the events of one series."""

# ruff: noqa: ARG002, ARG005 - what is called alike has one signature, whoever needs it all
# ruff: noqa: D102 - an override is documented where it is declared
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from stream_ml.errors import BadRecord
from stream_ml.features.aggregates import Aggregate
from stream_ml.features.durations import parse_duration
from stream_ml.features.transforms import (
    Evaluator,
    FeatureContext,
    Mistake,
    Scalar,
    Schema,
    field_mistakes,
    is_number,
    source_description,
    source_mistakes,
    source_name,
)
from stream_ml.features.windows.frames import Frame, duration_mistakes, duration_words
from stream_ml.schema import FieldType, brief, is_text, short_repr

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Duration", "WindowFeature"]


@dataclass(frozen=True, slots=True)
class Duration:
    """A duration among the arguments of an aggregate, which gets it in milliseconds."""

    text: str | int

    def __str__(self) -> str:
        return duration_words(self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowFeature(Scalar):
    """An aggregate over a window of one series.

    Attributes:
        frame: the stretch that the window holds.
        by: the fields in which its events have what the asking event has.
        entity: the fields that name whose window it is; none: the key does.
        delay: how long before the event it ends, over all partitions; None: it is of one partition.
        kind: the class of the aggregate.
        source: what it looks at; None for the events themselves.
        arguments: what its constructor takes.
        filters: fields, and the values of them that are let in.
        question: what the aggregate's `value` takes besides the time; those that differ in it alone
            share an aggregate.
    """

    is_stateless = False
    frame: Frame
    by: tuple[str, ...]
    kind: Any
    source: Any
    arguments: tuple[Any, ...]
    filters: tuple[tuple[str, tuple[Any, ...]], ...]
    question: tuple[Any, ...] = ()
    entity: tuple[str, ...] = ()
    delay: str | int | None = None

    @property
    def auto_name(self) -> str:
        inner = [] if self.source is None else [source_name(self.source)]
        inner += map(str, (*self.arguments, *self.question))
        words = [
            str(getattr(self.kind, "name", self.kind)) + (f"({', '.join(inner)})" if inner else ""),
            self.frame.name,
        ]
        if self.entity:
            words.append(f"of {','.join(map(str, self.entity))}")
        if self.delay is not None:
            words.append(f"delay {duration_words(self.delay)}")
        if self.by:
            words.append(f"by {','.join(map(str, self.by))}")
        words += [f"{name}={'|'.join(map(str, values))}" for name, values in self.filters]
        return " ".join(words)

    def mistakes(self, schema: Schema) -> Iterator[Mistake]:
        # An aggregate is made for a try only where nothing else is wrong.
        yield from list(self._mistakes(schema)) or self._trial_mistakes()

    def _mistakes(self, schema: Schema) -> Iterator[Mistake]:
        yield from self.frame.mistakes()
        for argument in (*self.arguments, *self.question):
            if isinstance(argument, Duration):
                yield from duration_mistakes(argument.text)
            elif not _is_argument(argument):
                yield "numbers and strings as the aggregate's arguments", brief(argument)
        if not (isinstance(self.kind, type) and issubclass(self.kind, Aggregate)):
            yield "a subclass of Aggregate", brief(self.kind)
            return
        word, version = getattr(self.kind, "name", None), getattr(self.kind, "version", None)
        if not is_text(word) or type(version) is not int:
            yield "an aggregate with a `name` and an integer `version`", brief(self.kind)
            return
        yield from self.kind.question_mistakes(*self.question)
        yield from self._source_mistakes(schema)
        yield from _group_mistakes("by", self.by, schema)
        yield from _group_mistakes("entity", self.entity, schema)
        if self.delay is not None:
            yield from self._delay_mistakes()
        for name, values in self.filters:
            yield from field_mistakes(name, schema)
            if name in schema:
                yield from _filter_mistakes(name, values, schema[name])
        yield from self.fill_mistakes()

    def _delay_mistakes(self) -> Iterator[Mistake]:
        """The mistakes in a delay, and in what cannot be had with one.

        Events of several partitions come in another order in each process: an answer must be the
        same in any, to the last bit.
        """
        yield from duration_mistakes(self.delay)
        if not self.entity:
            yield "`entity` beside `delay`: events of one key lie in one partition", "no entity"
        is_own = self.kind.__module__.startswith(f"{Aggregate.__module__.rpartition('.')[0]}.")
        if not is_own or self.kind.rounded:
            yield (
                "an aggregate of the package's that is exact, where there is a `delay`",
                (f"`{self.kind.name}`"),
            )
        if isinstance(self.source, Scalar) and self.source.may_raise():
            yield "no function of your own in a window with a `delay`", f"`{self.source.name}`"

    def _trial_mistakes(self) -> Iterator[Mistake]:
        """Whether an aggregate of the user's own can be made at all."""
        try:
            self.kind(*self.constructor_arguments()).value(0, *self.question_arguments())
        except Exception as error:  # noqa: BLE001 - a user's class may raise anything
            yield f"arguments with which {self.kind.name} can be made, and asked", short_repr(error)

    def _source_mistakes(self, schema: Schema) -> Iterator[Mistake]:
        word = self.kind.name
        if self.source is None:
            if self.kind.valued:
                yield f"what to take the {word} of", "nothing"
            return
        if not self.kind.valued:
            yield f"no value, as {word} looks at none", source_name(self.source)
            return
        mistakes = list(source_mistakes(self.source, schema))
        yield from mistakes
        if not mistakes and isinstance(self.source, Scalar) and not self.source.is_own():
            yield "an expression on the event's own fields", f"`{self.source.name}`"

    def describe(self) -> list[Any]:
        return [
            [*self.aggregate_description(), *self.question_arguments()],
            self.frame.describe(),
            self.series_description(),
            self.fill,
        ]

    def aggregate_description(self) -> list[Any]:
        """Which aggregate it is."""
        return [self.kind.name, self.kind.version, *self.constructor_arguments()]

    def series_description(self) -> list[Any]:
        """Which events and values it looks at: equal for the features that share a series."""
        filters = [[name, sorted(values, key=repr)] for name, values in self.filters]
        source = None if self.source is None else source_description(self.source)
        entity: list[Any] = [list(self.entity)] if self.entity else []
        if self.delay is not None:
            entity.append(["delay", parse_duration(self.delay)])
        return [list(self.by), filters, source, *entity]

    def constructor_arguments(self) -> tuple[Any, ...]:
        """The arguments that the aggregate is made with."""
        return _values(self.arguments)

    def question_arguments(self) -> tuple[Any, ...]:
        """What the aggregate is asked with, besides the time."""
        return _values(self.question)

    def asked(self, name: str, *question: Any) -> Self:
        """The same feature, asked otherwise.

        Args:
            name: how it is called.
            question: what the aggregate's `value` takes besides the time.
        """
        return replace(self, label=name, question=question)

    def total(self, schema: Schema) -> bool:
        return self.fill is not None

    def compile(self, context: FeatureContext) -> Evaluator:
        slot = context.slot(self)
        return lambda fields, t, answers: answers[slot]


def _values(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        parse_duration(argument.text) if isinstance(argument, Duration) else argument
        for argument in arguments
    )


def _is_argument(value: Any) -> bool:
    return (
        is_number(value)
        or is_text(value)
        or type(value) is bool
        or (type(value) is str and not value)
    )


def _group_mistakes(word: str, names: tuple[Any, ...], schema: Schema) -> Iterator[Mistake]:
    for name in names:
        if isinstance(name, set | frozenset):
            yield f"`{word}` a field, or a list of fields: a set has no order", brief(name)
            continue
        mistakes = list(field_mistakes(name, schema))
        yield from mistakes
        if not mistakes and schema[name].kind == "float":
            yield f"`{word}` a field with categories", f"`{name}`, which is {schema[name]}"


def _filter_mistakes(name: str, values: tuple[Any, ...], type_: FieldType) -> Iterator[Mistake]:
    if not values:
        yield f"values of `{name}` to look for", "none"
    for value in values:
        try:
            type_.check(name, value)
        except BadRecord:
            yield f"`{name}` to be {type_}", brief(value)
        else:
            if type(value) is str and value and not is_text(value):
                yield f"`{name}` to be {type_}", brief(value)
