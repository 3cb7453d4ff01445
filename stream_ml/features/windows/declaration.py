"""A window as it is declared; its methods are features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stream_ml.features.aggregates import (
    Aggregate,
    Count,
    Counts,
    DecayedMean,
    DecayedVariance,
    Distinct,
    DistinctApprox,
    First,
    Last,
    Max,
    Mean,
    Median,
    Min,
    Nearest,
    Quantile,
    SecondsSinceFirst,
    SecondsSinceLast,
    Slope,
    Sum,
    TopK,
    Variance,
)
from stream_ml.features.transforms import Feature, Scalar, as_scalar
from stream_ml.features.windows.frames import (
    CalendarUnit,
    Frame,
    Hopping,
    LastEvents,
    Nearby,
    SessionFrame,
    Sliding,
)
from stream_ml.features.windows.rate import Rate
from stream_ml.features.windows.sources import Raw, Registers
from stream_ml.features.windows.window_columns import CategoryCounts, RankCounts
from stream_ml.features.windows.window_feature import Duration, WindowFeature

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Window",
    "any_of",
    "calendar",
    "hopping",
    "lag",
    "last_events",
    "session",
    "tumbling",
    "window",
]


@dataclass(frozen=True, slots=True)
class Window:
    """A window of events before the asking one; its methods are features.

    Every method takes equality filters on fields by keyword (`kind="departed"`; a tuple means
    any of these), and `fill`, which stands in where there is no answer. `x` is the name of a
    field, or an expression on the event's own fields (`clip`, `log`, `function`, ...); events
    in which it is missing are not in the window.
    """

    frame: Frame
    by: tuple[str, ...] = ()
    entity: tuple[str, ...] = ()
    delay: str | int | None = None

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

    def first(self, x: str | Scalar, /, *, fill: float | None = None, **filters: Any) -> Scalar:
        """The oldest (in time; among equal times the earlier in the log); missing if none.

        Args:
            x: a numeric field's name, or an expression on the event's own fields.
            fill: stands in where there are none, or the event is in no group.
            filters: field = value, or a tuple of values: which events count.
        """
        return self.aggregate(First, x, fill=fill, **filters)

    def time_since_first(self, *, fill: float | None = None, **filters: Any) -> Scalar:
        """Seconds since the oldest event in the window; missing if there are none.

        Args:
            fill: stands in where there are none, in seconds.
            filters: field = value, or a tuple of values: which events count.
        """
        return self.aggregate(SecondsSinceFirst, fill=fill, **filters)

    def median(self, x: str | Scalar, /, *, fill: float | None = None, **filters: Any) -> Scalar:
        """The median, off by at most 0.8 % of itself; missing if there are none.

        Args:
            x: a numeric field's name, or an expression on the event's own fields.
            fill: stands in where there are none, or the event is in no group.
            filters: field = value, or a tuple of values: which events count.
        """
        return self.aggregate(Median, x, fill=fill, **filters)

    def quantile(
        self, x: str | Scalar, /, q: float, *, fill: float | None = None, **filters: Any
    ) -> Scalar:
        """A quantile, off by at most 0.8 % of itself; missing if there are none.

        Several quantiles of one window share their state.

        Args:
            x: a numeric field's name, or an expression on the event's own fields.
            q: which one, from 0 (the smallest) to 1 (the largest).
            fill: stands in where there are none, or the event is in no group.
            filters: field = value, or a tuple of values: which events count.
        """
        return replace(self._feature(Quantile, x, fill=fill, **filters), question=(q,))

    def distinct_approx(
        self, x: str | Scalar, /, *, fill: float | None = None, **filters: Any
    ) -> Scalar:
        """How many different values, with a standard error of 3.3 %; 0 if there are none.

        Args:
            x: a field's name, of any type, or an expression on the event's own fields.
            fill: stands in where the event is in no group, as its `by` is null.
            filters: field = value, or a tuple of values: which events count.
        """
        source = Raw(x) if isinstance(x, str) else x
        return self.aggregate(DistinctApprox, Registers(source), fill=fill, **filters)

    def counts(
        self,
        x: str,
        /,
        categories: Sequence[Any] | None = None,
        *,
        fill: float | None = None,
        **filters: Any,
    ) -> Feature:
        """How many events have each category of a field: a column for each, 0 if there are none.

        All columns share one state, where a `count` with a filter for each would have its own.

        Args:
            x: the field's name.
            categories: of a `str` or `int` field, those that get a column; an `Enum` or `bool`
                field knows them.
            fill: stands in where the event is in no group, as its `by` is null.
            filters: field = value, or a tuple of values: which events count.
        """
        chosen = tuple(categories) if isinstance(categories, list) else categories
        return CategoryCounts(
            window=self._feature(Counts, x, fill=fill, **filters), categories=chosen
        )

    def top_k(
        self, x: str | Scalar, /, k: int, *, fill: float | None = None, **filters: Any
    ) -> Feature:
        """How many events have the most frequent value, the second most, ...: `k` columns.

        0 where there are not so many different values.

        Args:
            x: a field's name, of any type, or an expression on the event's own fields.
            k: how many columns.
            fill: stands in where the event is in no group, as its `by` is null.
            filters: field = value, or a tuple of values: which events count.
        """
        return RankCounts(window=self._feature(TopK, x, fill=fill, **filters), k=k)

    def rate(
        self,
        x: str | Scalar | None = None,
        /,
        *,
        per: str | int = "1h",
        fill: float | None = None,
        **filters: Any,
    ) -> Scalar:
        """How many events, or how much of `x`, per unit of the time that the window covers.

        A window that began at this very moment has none: a day that has just begun, a session
        without an event.

        Args:
            x: what is summed up: a numeric field's name, or an expression on the event's own
                fields; None counts events.
            per: the unit of time: a duration.
            fill: stands in where there is none, or the event is in no group.
            filters: field = value, or a tuple of values: which events count.
        """
        counted = self._feature(Count if x is None else Sum, x, **filters)
        oldest = None
        if not self.frame.is_by_clock:
            oldest = replace(counted, kind=SecondsSinceFirst)
        return Rate(counted=counted, oldest=oldest, per=per, fill=fill)

    def slope(
        self,
        x: str | Scalar,
        /,
        *,
        per: str | int = "1h",
        fill: float | None = None,
        **filters: Any,
    ) -> Scalar:
        """How much `x` rises per unit of time: the slope of the least-squares line.

        Missing where there are no two events at different times.

        Args:
            x: a numeric field's name, or an expression on the event's own fields.
            per: the unit of time: a duration.
            fill: stands in where there is none, or the event is in no group.
            filters: field = value, or a tuple of values: which events count.
        """
        return replace(self._feature(Slope, x, fill=fill, **filters), question=(Duration(per),))

    def decayed_variance(
        self,
        x: str | Scalar,
        /,
        *,
        half_life: str | int,
        fill: float | None = None,
        **filters: Any,
    ) -> Scalar:
        """The variance about the decayed mean, with its weights; missing under two events.

        Args:
            x: a numeric field's name, or an expression on the event's own fields.
            half_life: the age at which a value counts half as much as a new one: a duration.
            fill: stands in under two events, or where the event is in no group.
            filters: field = value, or a tuple of values: which events count.
        """
        return self.aggregate(DecayedVariance, x, Duration(half_life), fill=fill, **filters)

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
        return self._feature(kind, x, *arguments, fill=fill, **filters)

    def _feature(
        self,
        kind: type[Aggregate],
        x: str | Scalar | None = None,
        /,
        *arguments: Any,
        fill: float | None = None,
        **filters: Any,
    ) -> WindowFeature:
        plain = isinstance(x, str) and not getattr(kind, "numeric", True)
        return WindowFeature(
            frame=self.frame,
            by=self.by,
            entity=self.entity,
            delay=self.delay,
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


def window(
    duration: str | int,
    by: str | Sequence[str] | None = None,
    ago: str | int | None = None,
    *,
    entity: str | Sequence[str] | None = None,
    delay: str | int | None = None,
) -> Window:
    """A window of event time that slides with the asking event: [t - duration, t).

    >>> window("1h").mean("dep_delay").name
    'mean(dep_delay) 1h'
    >>> window("1h").count(kind="departed").name
    'count 1h kind=departed'
    >>> window("3h", by="carrier").mean("dep_delay", kind=("departed", "landed")).name
    'mean(dep_delay) 3h by carrier kind=departed|landed'
    >>> window("1h", ago="1d").count().name
    'count 1h ago 1d'
    >>> window("1h", entity="merchant").count(kind="refused").name
    'count 1h of merchant kind=refused'
    >>> window("1h", entity="merchant", delay="10s").count().name
    'count 1h of merchant delay 10s'

    Args:
        duration: its length, such as `"30s"`, `"10m"`, `"1h"`, `"7d"`, or milliseconds.
        by: a field, or several: only events that have in them what the asking event has.
        entity: a field, or several, that name whose window it is in place of the key.
        ago: how long before the event it ends; by default it ends at the event. Then it is
            [t - ago - duration, t - ago): the hour that ended this time yesterday.
        delay: with it, events lie in any number of partitions, and the window holds those of all
            of them: [t - delay - duration, t - delay). The answer waits until no partition can
            bring an event of that time any more.
    """
    return Window(Sliding(duration, ago), _group_fields(by), _group_fields(entity), delay)


def tumbling(
    duration: str | int,
    by: str | Sequence[str] | None = None,
    *,
    previous: bool = False,
    entity: str | Sequence[str] | None = None,
) -> Window:
    """One of the windows that follow each other from 1970 on in UTC: the one the event is in.

    [start, t) with `start` the last multiple of `duration` that is not after t: so far, as of the
    event. A window of a place's days is a `calendar`.

    >>> tumbling("1h").count().name, tumbling("1h", previous=True).count().name
    ('count 1h tumbling', 'count 1h tumbling previous')

    Args:
        duration: their length, such as `"10m"`, `"1h"`, or milliseconds.
        by: a field, or several: only events that have in them what the asking event has.
        entity: a field, or several, that name whose window it is in place of the key.
        previous: the last one that is over instead, whole: [start - duration, start).
    """
    return Window(Hopping(duration, duration, previous), _group_fields(by), _group_fields(entity))


def hopping(
    duration: str | int,
    every: str | int,
    by: str | Sequence[str] | None = None,
    *,
    previous: bool = False,
    entity: str | Sequence[str] | None = None,
) -> Window:
    """One of the windows of which one begins every so often, from 1970 on in UTC.

    The event is in several; the oldest is taken, which has come furthest: [end - duration, t)
    with `end` the first multiple of `every` after t.

    >>> hopping("1h", every="10m").mean("amount").name
    'mean(amount) 1h every 10m'

    Args:
        duration: their length, such as `"1h"`, or milliseconds; a multiple of `every`.
        every: how long after each other they begin.
        by: a field, or several: only events that have in them what the asking event has.
        entity: a field, or several, that name whose window it is in place of the key.
        previous: the newest one that is over instead, whole: it ends at the last multiple of
            `every` that is not after t.
    """
    return Window(Hopping(duration, every, previous), _group_fields(by), _group_fields(entity))


def session(
    gap: str | int,
    by: str | Sequence[str] | None = None,
    *,
    longest: str | int = "1d",
    entity: str | Sequence[str] | None = None,
) -> Window:
    """The events that lead up to the asking one without a gap longer than `gap`.

    A gap of exactly `gap` is within. Empty where the event begins a session. A late event may
    join two sessions: who asks later sees one.

    >>> session(gap="30m").count().name
    'count session 30m'

    Args:
        gap: the longest gap that does not end a session, such as `"30m"`, or milliseconds.
        by: a field, or several: only events that have in them what the asking event has.
        entity: a field, or several, that name whose window it is in place of the key.
        longest: how far back at most: of a longer session the newest part is taken.
    """
    return Window(SessionFrame(gap, longest), _group_fields(by), _group_fields(entity))


def calendar(
    unit: str,
    tz: str = "UTC",
    by: str | Sequence[str] | None = None,
    *,
    previous: bool = False,
    entity: str | Sequence[str] | None = None,
) -> Window:
    """The hour, day, week or month that the event is in, by the clocks of a place: so far.

    [start, t) with `start` the first moment of the unit. A day begins when the clocks first show
    its date, a week with its Monday, a month with its first; the day on which clocks are changed
    has 23 or 25 hours, and an hour that comes twice is two.

    >>> calendar("day", tz="America/New_York").sum("amount").name
    'sum(amount) this day America/New_York'
    >>> calendar("month", previous=True).count().name
    'count previous month'

    Args:
        unit: `"hour"`, `"day"`, `"week"` or `"month"`.
        tz: the time zone whose clocks and calendar are meant.
        by: a field, or several: only events that have in them what the asking event has.
        entity: a field, or several, that name whose window it is in place of the key.
        previous: the whole unit before instead: yesterday.
    """
    return Window(CalendarUnit(unit, tz, previous), _group_fields(by), _group_fields(entity))


def last_events(
    n: int,
    by: str | Sequence[str] | None = None,
    *,
    within: str | int = "30d",
    entity: str | Sequence[str] | None = None,
) -> Window:
    """The newest events before the asking one, so many, if they are not too old.

    Of equal times those that came later in the log are newer.

    >>> last_events(20).mean("amount").name
    'mean(amount) last 20'

    Args:
        n: how many, 10,000 at most.
        by: a field, or several: only events that have in them what the asking event has.
        entity: a field, or several, that name whose window it is in place of the key.
        within: how far back at most: a key without an event for so long is forgotten.
    """
    return Window(LastEvents(n, within), _group_fields(by), _group_fields(entity))


def lag(
    x: str | Scalar,
    ago: str | int,
    by: str | Sequence[str] | None = None,
    *,
    tolerance: str | int,
    entity: str | Sequence[str] | None = None,
    fill: float | None = None,
    **filters: Any,
) -> Scalar:
    """The value some time ago: of the event that is nearest to that moment.

    Of two events that are equally near it is the newer one, of equal times the later in the log;
    missing where none is as near as `tolerance`.

    >>> lag("amount", "1d", tolerance="1h").name
    'lag(amount, 1d) within 1h'

    Args:
        x: a numeric field's name, or an expression on the event's own fields.
        ago: how long before the event, such as `"1d"` or `"7d"`.
        by: a field, or several: only events that have in them what the asking event has.
        entity: a field, or several, that name whose window it is in place of the key.
        tolerance: how far from that moment at most; below `ago`.
        fill: stands in where there is no such event, or the event is in no group.
        filters: field = value, or a tuple of values: which events count.
    """
    near = Window(Nearby(ago, tolerance), _group_fields(by), _group_fields(entity))
    return near.aggregate(Nearest, x, Duration(ago), fill=fill, **filters)


def _group_fields(by: Any) -> tuple[str, ...]:
    if by is None:
        return ()
    return tuple(by) if isinstance(by, tuple | list) else (by,)
