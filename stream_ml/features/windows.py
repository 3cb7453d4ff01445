"""Sliding windows of event time: how they are declared, and the buffers that answer them.

Theory of operation
-------------------

A window of length w, asked by an event at t, holds every event of the same key that came before
it in the log and whose time is in [t - w, t), in integer milliseconds. The asking event and
others at equal t are out.

A *series* is what windows can share: the same sub-group (`by`), the same filters, the same
value. A `Buffer` is one series of one key (and group): times and values, sorted by time, ties in
the order of the log, with a moment `as_of_ms` up to which it has moved:

    times     3    5    5    8    9   12   12
    index     0    1    2    3    4    5    6
                        ^tail               ^head         as_of_ms = 12, w = 7: [5, 12)
              (start = 0)                                 index 5 and 6 are pending

1. `head` is the first index whose time is not below `as_of_ms`. All events from there on are at
   exactly `as_of_ms`, or ahead of it (rule 4). There is one head per buffer.
2. `tails[k]` is the first index whose time is not below `as_of_ms - w_k`. The aggregates of window
   k hold exactly [tails[k], head).
3. `as_of_ms` rises by an insertion, or by a question. Moving adds what was pending and evicts
   what the tails pass, each event once per window: O(1) per event and aggregate, amortised.
4. A question or an insertion before `as_of_ms` is late. A late insertion goes to its place; an
   aggregate that may take it in any order does, another is filled anew. A late question leaves
   the buffer as it was: an aggregate that may go in any order is moved to where the question is
   and back, for another a fresh one is filled. At worst that is O(events in the window). But where
   `as_of_ms` is ahead of the watermark the question moves the buffer back, for good: what took it
   ahead may be one wrong clock, and all that is asked until then would be late.
5. Events before `watermark - lateness - longest window` are dropped as the buffer moves: no event
   that is not too late can ask for them. The newest stays until the whole buffer is dropped,
   which is when the watermark has passed it by as much (`FeatureState.advance`). Over
   `window_events_max` the oldest event is dropped, and counted.
6. What is stored are the aggregates' own states, as they are, but for those that take as much
   room as the window (`refilled`): they are filled anew when a buffer is restored. Physical
   details (the room before `start`) are not stored.

A buffer changes in `move`, `insert` and `load`, all here, and in nothing else.
"""

# ruff: noqa: ARG002, ARG005 - what is called alike has one signature, whoever needs it all
# ruff: noqa: D102 - an override is documented where it is declared
from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Self

from stream_ml.errors import BadRecord
from stream_ml.features.aggregates import (
    Aggregate,
    Count,
    DecayedMean,
    Distinct,
    Last,
    Max,
    Mean,
    Min,
    SecondsSinceLast,
    Sum,
    Variance,
)
from stream_ml.features.durations import duration_text, parse_duration
from stream_ml.features.guarded import GuardedAggregate
from stream_ml.features.transforms import (
    Evaluator,
    FeatureContext,
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
from stream_ml.schema import FieldType, brief, is_text, short_repr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Buffer", "Clock", "Series", "Window", "WindowFeature", "any_of", "window"]

# Reclaiming the room of dropped events moves what remains: not worth it for fewer.
RECLAIM_MIN = 64


@dataclass(frozen=True, slots=True)
class Window:
    """A window of event time before the asking event; its methods are features.

    Every method takes equality filters on fields by keyword (`kind="departed"`; a tuple means
    any of these), and `fill`, which stands in where there is no answer. `x` is the name of a
    field, or an expression on the event's own fields (`clip`, `log`, `function`, ...); events
    in which it is missing are not in the window.
    """

    duration: str | int
    by: tuple[str, ...] = ()

    def count(self, *, fill: float | None = None, **filters: Any) -> Scalar:
        """How many events; 0 if none.

        Args:
            fill: stands in where the event is in no group, as its `by` is null.
            filters: field = value, or a tuple of values: which events count.
        """
        return self.aggregate(Count, fill=fill, **filters)

    def sum(self, x: str | Scalar, /, *, fill: float | None = None, **filters: Any) -> Scalar:
        """The sum; 0 if there are none.

        Args:
            x: a numeric field's name, or an expression on the event's own fields.
            fill: stands in where the event is in no group, as its `by` is null.
            filters: field = value, or a tuple of values: which events count.
        """
        return self.aggregate(Sum, x, fill=fill, **filters)

    def mean(self, x: str | Scalar, /, *, fill: float | None = None, **filters: Any) -> Scalar:
        """The mean; missing if there are none.

        Args:
            x: a numeric field's name, or an expression on the event's own fields.
            fill: stands in where there are none, or the event is in no group.
            filters: field = value, or a tuple of values: which events count.
        """
        return self.aggregate(Mean, x, fill=fill, **filters)

    def variance(self, x: str | Scalar, /, *, fill: float | None = None, **filters: Any) -> Scalar:
        """The sample variance (n - 1); missing under two events.

        Args:
            x: a numeric field's name, or an expression on the event's own fields.
            fill: stands in under two events.
            filters: field = value, or a tuple of values: which events count.
        """
        return self.aggregate(Variance, x, fill=fill, **filters)

    def min(self, x: str | Scalar, /, *, fill: float | None = None, **filters: Any) -> Scalar:
        """The smallest; missing if there are none.

        Args:
            x: a numeric field's name, or an expression on the event's own fields.
            fill: stands in where there are none, or the event is in no group.
            filters: field = value, or a tuple of values: which events count.
        """
        return self.aggregate(Min, x, fill=fill, **filters)

    def max(self, x: str | Scalar, /, *, fill: float | None = None, **filters: Any) -> Scalar:
        """The largest; missing if there are none.

        Args:
            x: a numeric field's name, or an expression on the event's own fields.
            fill: stands in where there are none, or the event is in no group.
            filters: field = value, or a tuple of values: which events count.
        """
        return self.aggregate(Max, x, fill=fill, **filters)

    def last(self, x: str | Scalar, /, *, fill: float | None = None, **filters: Any) -> Scalar:
        """The newest (in time; among equal times the later in the log); missing if none.

        Args:
            x: a numeric field's name, or an expression on the event's own fields.
            fill: stands in where there are none, or the event is in no group.
            filters: field = value, or a tuple of values: which events count.
        """
        return self.aggregate(Last, x, fill=fill, **filters)

    def time_since_last(self, *, fill: float | None = None, **filters: Any) -> Scalar:
        """Seconds since the newest event in the window; missing if there are none.

        Args:
            fill: stands in where there are none, in seconds.
            filters: field = value, or a tuple of values: which events count.
        """
        return self.aggregate(SecondsSinceLast, fill=fill, **filters)

    def distinct(self, x: str | Scalar, /, *, fill: float | None = None, **filters: Any) -> Scalar:
        """How many different values, exactly; `x` may be any field; 0 if there are none.

        Args:
            x: a field's name, of any type, or an expression on the event's own fields.
            fill: stands in where the event is in no group, as its `by` is null.
            filters: field = value, or a tuple of values: which events count.
        """
        return self.aggregate(Distinct, x, fill=fill, **filters)

    def decayed_mean(
        self,
        x: str | Scalar,
        /,
        *,
        half_life: str | int,
        fill: float | None = None,
        **filters: Any,
    ) -> Scalar:
        """The mean with weights that halve for every `half_life` of age; missing if none.

        Args:
            x: a numeric field's name, or an expression on the event's own fields.
            half_life: the age at which a value counts half as much as a new one: a duration.
            fill: stands in where there are none, or the event is in no group.
            filters: field = value, or a tuple of values: which events count.
        """
        return self.aggregate(DecayedMean, x, Duration(half_life), fill=fill, **filters)

    def aggregate(
        self,
        kind: type[Aggregate],
        x: str | Scalar | None = None,
        /,
        *arguments: Any,
        fill: float | None = None,
        **filters: Any,
    ) -> Scalar:
        """An aggregate of your own (see `stream_ml.features.aggregates`).

        Args:
            kind: the class.
            x: what it looks at; None if it is not `valued`.
            arguments: what its constructor takes: numbers and strings.
            fill: stands in where it gives None.
            filters: as everywhere.
        """
        plain = isinstance(x, str) and not getattr(kind, "numeric", True)
        return WindowFeature(
            window=self,
            kind=kind,
            source=Raw(str(x)) if plain else as_scalar(x),
            arguments=arguments,
            filters=tuple((name, any_of(values)) for name, values in sorted(filters.items())),
            fill=fill,
        )


def any_of(values: Any) -> tuple[Any, ...]:
    """The values that are looked for, in an order that is the same in every process."""
    if isinstance(values, set | frozenset):
        return tuple(sorted(values, key=repr))
    return tuple(values) if isinstance(values, tuple | list) else (values,)


def window(duration: str | int, by: str | Sequence[str] | None = None) -> Window:
    """A window of event time before the asking event.

    >>> window("1h").mean("dep_delay").name
    'mean(dep_delay) 1h'
    >>> window("1h").count(kind="departed").name
    'count 1h kind=departed'
    >>> window("3h", by="carrier").mean("dep_delay", kind=("departed", "landed")).name
    'mean(dep_delay) 3h by carrier kind=departed|landed'

    Args:
        duration: its length, such as `"30s"`, `"10m"`, `"1h"`, `"7d"`, or milliseconds.
        by: a field, or several: only events that have in them what the asking event has.
    """
    name: Any = by
    if by is None:
        return Window(duration)
    return Window(duration, tuple(by) if isinstance(by, tuple | list) else (name,))


@dataclass(frozen=True, slots=True)
class Duration:
    """A duration among the arguments of an aggregate, which gets it in milliseconds."""

    text: str | int

    def __str__(self) -> str:
        return _duration_text(self.text)


def _duration_text(duration: Any) -> str:
    try:
        return duration_text(parse_duration(duration))
    except ValueError:
        return str(duration)


def _duration_mistakes(duration: Any) -> Iterator[Mistake]:
    try:
        parse_duration(duration)
    except ValueError:
        yield "a duration such as '30s', '10m', '1h', '7d' or milliseconds", brief(duration)


@dataclass(frozen=True, slots=True)
class Raw(Scalar):
    """A field as it is, of whatever type, for the aggregates that can take it."""

    field: str

    @property
    def auto_name(self) -> str:
        return self.field

    def mistakes(self, schema: Schema) -> Iterator[Mistake]:
        yield from field_mistakes(self.field, schema)

    def describe(self) -> list[Any]:
        return ["raw", self.field]

    def total(self, schema: Schema) -> bool:
        return not schema[self.field].optional

    def compile(self, context: FeatureContext) -> Evaluator:
        name = self.field
        return lambda fields, t, answers: fields[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowFeature(Scalar):
    """An aggregate over a window of one series."""

    is_stateless = False
    window: Window
    kind: Any
    source: Any
    arguments: tuple[Any, ...]
    filters: tuple[tuple[str, tuple[Any, ...]], ...]

    @property
    def auto_name(self) -> str:
        inner = [] if self.source is None else [source_name(self.source)]
        inner += map(str, self.arguments)
        words = [
            str(getattr(self.kind, "name", self.kind)) + (f"({', '.join(inner)})" if inner else ""),
            _duration_text(self.window.duration),
        ]
        if self.window.by:
            words.append(f"by {','.join(map(str, self.window.by))}")
        words += [f"{name}={'|'.join(map(str, values))}" for name, values in self.filters]
        return " ".join(words)

    @property
    def duration_ms(self) -> int:
        """How long the window is."""
        return parse_duration(self.window.duration)

    def mistakes(self, schema: Schema) -> Iterator[Mistake]:
        # An aggregate is made for a try only where nothing else is wrong.
        yield from list(self._mistakes(schema)) or self._trial_mistakes()

    def _mistakes(self, schema: Schema) -> Iterator[Mistake]:
        yield from _duration_mistakes(self.window.duration)
        for argument in self.arguments:
            if isinstance(argument, Duration):
                yield from _duration_mistakes(argument.text)
            elif not _is_argument(argument):
                yield "numbers and strings as the aggregate's arguments", brief(argument)
        if not (isinstance(self.kind, type) and issubclass(self.kind, Aggregate)):
            yield "a subclass of Aggregate", brief(self.kind)
            return
        word, version = getattr(self.kind, "name", None), getattr(self.kind, "version", None)
        if not is_text(word) or type(version) is not int:
            yield "an aggregate with a `name` and an integer `version`", brief(self.kind)
            return
        yield from self._source_mistakes(schema)
        yield from self._by_mistakes(schema)
        for name, values in self.filters:
            yield from field_mistakes(name, schema)
            if name in schema:
                yield from _filter_mistakes(name, values, schema[name])
        yield from self.fill_mistakes()

    def _by_mistakes(self, schema: Schema) -> Iterator[Mistake]:
        for name in self.window.by:
            if isinstance(name, set | frozenset):
                yield "`by` a field, or a list of fields: a set has no order", brief(name)
                continue
            mistakes = list(field_mistakes(name, schema))
            yield from mistakes
            if not mistakes and schema[name].kind == "float":
                yield "`by` a field with categories", f"`{name}`, which is {schema[name]}"

    def _trial_mistakes(self) -> Iterator[Mistake]:
        """Whether an aggregate of the user's own can be made at all."""
        try:
            self.kind(*self.constructor_arguments()).value(0)
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
            self.aggregate_description(),
            self.duration_ms,
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
        return [list(self.window.by), filters, source]

    def constructor_arguments(self) -> tuple[Any, ...]:
        """The arguments that the aggregate is made with."""
        return tuple(
            parse_duration(argument.text) if isinstance(argument, Duration) else argument
            for argument in self.arguments
        )

    def total(self, schema: Schema) -> bool:
        return self.fill is not None

    def compile(self, context: FeatureContext) -> Evaluator:
        slot = context.slot(self)
        return lambda fields, t, answers: answers[slot]


def _is_argument(value: Any) -> bool:
    return (
        is_number(value)
        or is_text(value)
        or type(value) is bool
        or (type(value) is str and not value)
    )


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


@dataclass(slots=True)
class Series:
    """The part that is the same for all buffers of one series. It never changes.

    Attributes:
        id: what it is, as a short text: stored with every buffer.
        filters: fields and the values of them that are let in.
        evaluate: an event's value; None leaves the event out.
        windows: per window its length and which of a buffer's aggregates are its own.
        makers: makes those aggregates.
        readings: per answer the aggregate's method and which aggregate to ask.
        features: the features that are answered, in the order of `readings`.
        keep_ms: how long before the newest moment an event can matter.
        empty: the answers where there is no buffer.
        is_valueless: whether the value is always 1.
        fallible: whether `evaluate` may raise.
        window_events_max: how many events a buffer holds at most.
    """

    id: str
    filters: tuple[tuple[str, frozenset[Any]], ...]
    evaluate: Evaluator
    windows: tuple[tuple[int, tuple[int, ...]], ...]
    makers: tuple[Callable[[], Aggregate], ...]
    readings: tuple[tuple[Callable[[Any, int], float | None], int], ...]
    features: tuple[WindowFeature, ...]
    keep_ms: int
    empty: tuple[float | None, ...]
    is_valueless: bool
    fallible: bool
    window_events_max: int

    def admits(self, fields: Mapping[str, Any]) -> bool:
        """Whether the filters let an event in."""
        for name, values in self.filters:  # noqa: SIM110 - a loop is twice as fast as `all`
            if fields[name] not in values:
                return False
        return True


@dataclass(slots=True)
class Clock:
    """The watermark that all buffers of a partition drop by."""

    watermark_ms: int = -1


class Buffer:
    """One series of one key and group. The header of this module has the rules.

    Args:
        series: what it looks at.
        entity: see below.
        as_of_ms: the moment it starts from.
        clock: its partition's.

    Attributes:
        entity: the key, or a tuple of the key and its group.
        live: whether it is still held (not dropped).
        is_dirty: whether it has changed since it was last stored.
    """

    __slots__ = (
        "aggregates",
        "as_of_ms",
        "clock",
        "entity",
        "head",
        "is_dirty",
        "live",
        "series",
        "start",
        "tails",
        "times",
        "values",
    )

    def __init__(self, series: Series, entity: Any, as_of_ms: int, clock: Clock) -> None:
        self.series = series
        self.entity = entity
        self.clock = clock
        self.as_of_ms = as_of_ms
        self.times: list[int] = []
        self.values: list[Any] = []
        self.start = 0
        self.head = 0
        self.tails = [0] * len(series.windows)
        self.aggregates: list[Any] = [make() for make in series.makers]
        self.live = True
        self.is_dirty = False

    @property
    def keep_until(self) -> int:
        """The last watermark at which an event that is not too late can still ask for it."""
        return self.times[-1] + self.series.keep_ms

    def move(self, t: int) -> None:
        """Rise to `t`, which is above `as_of_ms`."""
        times, values, aggregates = self.times, self.values, self.aggregates
        head, end = self.head, len(times)
        while head < end and (time := times[head]) < t:
            value = values[head]
            for aggregate in aggregates:
                aggregate.add(time, value)
            head += 1
        self.as_of_ms = t
        self.head = head
        tails = self.tails
        for k, (duration_ms, members) in enumerate(self.series.windows):
            first, tail = t - duration_ms, tails[k]
            while tail < head and (time := times[tail]) < first:
                value = values[tail]
                for member in members:
                    aggregates[member].evict(time, value)
                tail += 1
            tails[k] = tail
        oldest, start = min(t, self.clock.watermark_ms) - self.series.keep_ms, self.start
        if start < head and times[start] < oldest:
            # The newest stays, whatever its age: it tells when the buffer as a whole can go.
            self.start = min(bisect_left(times, oldest, start), head - 1)
            if self.start >= RECLAIM_MIN and self.start * 2 >= head:
                self._reclaim()

    def _reclaim(self) -> None:
        start = self.start
        del self.times[:start], self.values[:start]
        self.start = 0
        self.head -= start
        self.tails = [tail - start for tail in self.tails]

    def insert(self, t: int, x: Any) -> int:
        """Take an event in; gives how many the limit made it drop (0 or 1).

        Args:
            t: the event's time in milliseconds.
            x: its value, as the series evaluates it.
        """
        if t >= self.as_of_ms:
            if t > self.as_of_ms:
                self.move(t)
            # After all, unless some are ahead of `as_of_ms`.
            index = bisect_right(self.times, t, self.head)
            self.times.insert(index, t)
            self.values.insert(index, x)
        else:
            self._insert_late(t, x)
        if len(self.times) - self.start <= self.series.window_events_max:
            return 0
        self._drop_oldest()
        return 1

    def _insert_late(self, t: int, x: Any) -> None:
        index = bisect_right(self.times, t, self.start)
        self.times.insert(index, t)
        self.values.insert(index, x)
        self.head += 1
        for k, (duration_ms, members) in enumerate(self.series.windows):
            if t < self.as_of_ms - duration_ms:
                self.tails[k] += 1
                continue
            for member in members:
                if self.aggregates[member].any_order:
                    self.aggregates[member].add(t, x)
                else:
                    self.aggregates[member] = self._refill(member, self.tails[k], self.head)

    def _drop_oldest(self) -> None:
        start = self.start
        for k, (_, members) in enumerate(self.series.windows):
            if self.tails[k] == start:
                if start < self.head:
                    for member in members:
                        self.aggregates[member].evict(self.times[start], self.values[start])
                self.tails[k] += 1
        self.start = start + 1
        self.head = max(self.head, self.start)
        if self.start >= RECLAIM_MIN and self.start * 2 >= len(self.times):
            self._reclaim()

    def _refill(self, member: int, tail: int, head: int) -> Any:
        aggregate: Any = self.series.makers[member]()
        if type(aggregate) is GuardedAggregate:
            aggregate.failures = self.aggregates[member].failures
        aggregate.fill(self.times[tail:head], self.values[tail:head])
        return aggregate

    def listen(self, failures: list[str]) -> None:
        """Have users' aggregates say there what they raise."""
        for aggregate in self.aggregates:
            if type(aggregate) is GuardedAggregate:
                aggregate.listen(failures)

    def read(self, t: int, answers: list[float | None]) -> None:
        """Append the answers for an event at `t`.

        Args:
            t: the time of the event that asks, in milliseconds.
            answers: gets one answer for each feature of the series, in the order of its `readings`.
        """
        if t > self.as_of_ms:
            self.move(t)
        elif t < self.as_of_ms:
            if self.as_of_ms <= self.clock.watermark_ms:
                self._read_late(t, answers)
                return
            self._move_back(t)
        aggregates = self.aggregates
        answers += [value(aggregates[member], t) for value, member in self.series.readings]

    def _read_late(self, t: int, answers: list[float | None]) -> None:
        """As `read`, for a moment that is past; nothing is changed by it."""
        present = list(self.aggregates)
        shifts = []
        head = bisect_left(self.times, t, self.start, self.head)
        for k, (duration_ms, members) in enumerate(self.series.windows):
            tail = bisect_left(self.times, t - duration_ms, self.start, head)
            near = self.head - head + self.tails[k] - tail < head - tail
            for member in members:
                if near and present[member].any_order and head >= self.tails[k]:
                    self._shift(present[member], (tail, self.tails[k]), (head, self.head))
                    shifts.append((present[member], (tail, self.tails[k]), (head, self.head)))
                else:
                    present[member] = self._refill(member, tail, head)
        answers += [value(present[member], t) for value, member in self.series.readings]
        for aggregate, older, newer in shifts:
            self._shift(aggregate, newer, older)

    def _move_back(self, t: int) -> None:
        """Fall to `t`, which is below `as_of_ms`."""
        head = bisect_left(self.times, t, self.start, self.head)
        for k, (duration_ms, members) in enumerate(self.series.windows):
            tail = bisect_left(self.times, t - duration_ms, self.start, head)
            near = self.head - head + self.tails[k] - tail < head - tail
            for member in members:
                aggregate = self.aggregates[member]
                if near and aggregate.any_order and head >= self.tails[k]:
                    self._shift(aggregate, (tail, self.tails[k]), (head, self.head))
                else:
                    self.aggregates[member] = self._refill(member, tail, head)
            self.tails[k] = tail
        self.head = head
        self.as_of_ms = t

    def _shift(self, aggregate: Aggregate, gain: tuple[int, int], lose: tuple[int, int]) -> None:
        times, values = self.times, self.values
        for i in range(*gain):
            aggregate.add(times[i], values[i])
        for i in range(*lose):
            aggregate.evict(times[i], values[i])

    def dump(self) -> list[Any]:
        """All of it as JSON values."""
        start = self.start
        times = self.times[start:]
        return [
            self.as_of_ms,
            # Differences are a third of the size.
            [*times[:1], *(later - earlier for earlier, later in pairwise(times))],
            None if self.series.is_valueless else self.values[start:],
            self.head - start,
            [tail - start for tail in self.tails],
            [None if aggregate.refilled else aggregate.dump() for aggregate in self.aggregates],
        ]

    @classmethod
    def load(cls, series: Series, entity: Any, state: list[Any], clock: Clock) -> Self:
        """The buffer that `dump` described.

        Args:
            series: the one that it was a buffer of.
            entity: the key, or a tuple of the key and its group.
            state: what `dump` gave.
            clock: its partition's.
        """
        as_of_ms, differences, values, head, tails, aggregates = state
        buffer = cls(series, entity, as_of_ms, clock)
        buffer.times = list(accumulate(differences))
        buffer.values = [1.0] * len(differences) if values is None else values
        buffer.head = head
        buffer.tails = tails
        for (_, members), tail in zip(series.windows, tails, strict=True):
            for member in members:
                aggregate, aggregate_state = buffer.aggregates[member], aggregates[member]
                if aggregate_state is None and aggregate.refilled:
                    aggregate.fill(buffer.times[tail:head], buffer.values[tail:head])
                else:  # as all were stored once
                    aggregate.load(aggregate_state)
        return buffer
