"""A window of event time as it is declared; its methods are features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
from stream_ml.features.transforms import Scalar, as_scalar
from stream_ml.features.windows.frames import Sliding
from stream_ml.features.windows.window_feature import Duration, Raw, WindowFeature

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Window", "any_of", "window"]


@dataclass(frozen=True, slots=True)
class Window:
    """A window of event time before the asking event; its methods are features.

    Every method takes equality filters on fields by keyword (`kind="departed"`; a tuple means
    any of these), and `fill`, which stands in where there is no answer. `x` is the name of a
    field, or an expression on the event's own fields (`clip`, `log`, `function`, ...); events
    in which it is missing are not in the window.
    """

    frame: Sliding
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
            frame=self.frame,
            by=self.by,
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
    return Window(Sliding(duration), _group_fields(by))


def _group_fields(by: Any) -> tuple[str, ...]:
    if by is None:
        return ()
    return tuple(by) if isinstance(by, tuple | list) else (by,)
