"""The stretches of time, or of events, that a window can hold: each is defined here.

All are asked by an event at t about events of its key that came before it in the log and whose
time is below t, in integer milliseconds: the asking event and others at equal t are out. An event
that is late itself asks as of its own time; from then on it is where its time puts it, for all
that ask later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from stream_ml.features.durations import duration_text, parse_duration
from stream_ml.features.time_zones import CALENDAR_UNITS, Calendar, zone_mistakes
from stream_ml.features.windows.reach import CountReach, Reach, SessionReach, TimeReach
from stream_ml.schema import brief, is_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stream_ml.features.transforms import Mistake

__all__ = [
    "CalendarUnit",
    "Frame",
    "Hopping",
    "LastEvents",
    "Nearby",
    "SessionFrame",
    "Sliding",
    "duration_mistakes",
    "duration_words",
]

# They are filled anew for each event that is late.
LAST_EVENTS_MAX = 10_000


class Frame:
    """The base of all.

    Attributes:
        is_by_clock: whether the time of the asking event alone says where it begins and ends.
        name: how it is called in the names of features.
        horizon_ms: how far before the asking event it can reach at most, in milliseconds.
    """

    __slots__ = ()
    is_by_clock: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """How it is called in the names of features."""
        raise NotImplementedError

    @property
    def horizon_ms(self) -> int:
        """How far before the asking event it can reach at most, in milliseconds."""
        raise NotImplementedError

    def mistakes(self) -> Iterator[Mistake]:
        """The mistakes in its declaration."""
        raise NotImplementedError

    def describe(self) -> Any:
        """What it is, as JSON values: equal for equal frames."""
        raise NotImplementedError

    def reach(self) -> Reach:
        """From where to where it reaches."""
        raise NotImplementedError

    def covered_ms(self) -> Callable[[int], int]:
        """How much time it covers for an event at t, in milliseconds, where the clock says so."""
        reach = self.reach()
        if not isinstance(reach, TimeReach):
            raise TypeError(self)
        begin, end = reach.begin, reach.end
        if end is None:
            return lambda t: t - begin(t)
        return lambda t: end(t) - begin(t)


@dataclass(frozen=True, slots=True)
class Sliding(Frame):
    """A stretch of one length that ends at the event, or some time before it.

    [t - duration, t), or with `ago` [t - ago - duration, t - ago).

    Attributes:
        duration: its length: such as "1h", or milliseconds.
        ago: how long before the event it ends; None for at the event.
    """

    duration: str | int
    ago: str | int | None = None

    @property
    def name(self) -> str:
        """As `Frame.name`."""
        words = duration_words(self.duration)
        return words if self.ago is None else f"{words} ago {duration_words(self.ago)}"

    @property
    def duration_ms(self) -> int:
        """Its length, in milliseconds."""
        return parse_duration(self.duration)

    @property
    def ago_ms(self) -> int:
        """How long before the event it ends, in milliseconds."""
        return 0 if self.ago is None else parse_duration(self.ago)

    @property
    def horizon_ms(self) -> int:
        """As `Frame.horizon_ms`."""
        return self.duration_ms + self.ago_ms

    def mistakes(self) -> Iterator[Mistake]:
        """As `Frame.mistakes`."""
        yield from duration_mistakes(self.duration)
        if self.ago is not None:
            yield from duration_mistakes(self.ago)

    def describe(self) -> Any:
        """As `Frame.describe`; a number where it ends at the event."""
        return self.duration_ms if self.ago is None else ["ago", self.duration_ms, self.ago_ms]

    def reach(self) -> Reach:
        """As `Frame.reach`."""
        horizon_ms, ago_ms = self.horizon_ms, self.ago_ms
        end = None if self.ago is None else lambda t: t - ago_ms
        return TimeReach(lambda t: t - horizon_ms, end)


@dataclass(frozen=True, slots=True)
class Hopping(Frame):
    """Stretches of one length of which one begins at each multiple of `every`, from 1970 in UTC.

    They hold [k * every, k * every + duration), for whole k. With `every` as long as they are,
    they are tumbling: none overlaps another. The one that is meant is the oldest that is not
    over at t, as far as it has come: it begins at `every * (t // every + 1) - duration`. With
    `previous` it is the newest that is over at t, whole: the one that ends at
    `every * (t // every)`.

    Attributes:
        duration: their length: such as "1h", or milliseconds.
        every: how long after each other they begin; the length is a multiple of it.
        previous: whether the last that is over is meant.
    """

    duration: str | int
    every: str | int
    previous: bool = False

    @property
    def name(self) -> str:
        """As `Frame.name`."""
        length, step = duration_words(self.duration), duration_words(self.every)
        words = f"{length} tumbling" if length == step else f"{length} every {step}"
        return f"{words} previous" if self.previous is True else words

    @property
    def duration_ms(self) -> int:
        """Their length, in milliseconds."""
        return parse_duration(self.duration)

    @property
    def every_ms(self) -> int:
        """How long after each other they begin, in milliseconds."""
        return parse_duration(self.every)

    @property
    def horizon_ms(self) -> int:
        """As `Frame.horizon_ms`."""
        return self.duration_ms + (self.every_ms if self.previous else 0)

    def mistakes(self) -> Iterator[Mistake]:
        """As `Frame.mistakes`."""
        mistakes = [*duration_mistakes(self.duration)]
        if self.every is not self.duration:
            mistakes += duration_mistakes(self.every)
        yield from mistakes
        if not mistakes and self.duration_ms % self.every_ms:
            expected = f"`every` to go into {duration_words(self.duration)} without a rest"
            yield expected, duration_words(self.every)
        yield from _flag_mistakes(self.previous)

    def describe(self) -> Any:
        """As `Frame.describe`."""
        return ["hopping", self.duration_ms, self.every_ms, self.previous]

    def reach(self) -> Reach:
        """As `Frame.reach`."""
        every_ms, duration_ms = self.every_ms, self.duration_ms
        if self.previous:
            return TimeReach(
                lambda t: t // every_ms * every_ms - duration_ms, lambda t: t // every_ms * every_ms
            )
        ahead_ms = every_ms - duration_ms
        return TimeReach(lambda t: t // every_ms * every_ms + ahead_ms)


@dataclass(frozen=True, slots=True)
class SessionFrame(Frame):
    """The events that lead up to this one without a gap longer than `gap`.

    Going back from t, each event is in whose distance to the one after it (to t, for the newest)
    is at most `gap`, up to the first that is not, and none from before t - longest. Empty where
    the newest event is more than `gap` before t: then this one begins a session.

    Attributes:
        gap: the longest gap that does not end a session: such as "30m", or milliseconds.
        longest: how far back at most: a session that is longer is cut.
    """

    is_by_clock = False
    gap: str | int
    longest: str | int

    @property
    def name(self) -> str:
        """As `Frame.name`."""
        return f"session {duration_words(self.gap)}"

    @property
    def horizon_ms(self) -> int:
        """As `Frame.horizon_ms`."""
        return parse_duration(self.longest)

    def mistakes(self) -> Iterator[Mistake]:
        """As `Frame.mistakes`."""
        mistakes = [*duration_mistakes(self.gap), *duration_mistakes(self.longest)]
        yield from mistakes
        if not mistakes and parse_duration(self.gap) > self.horizon_ms:
            expected = f"`longest` not below the gap of {duration_words(self.gap)}"
            yield expected, duration_words(self.longest)

    def describe(self) -> Any:
        """As `Frame.describe`."""
        return ["session", parse_duration(self.gap), self.horizon_ms]

    def reach(self) -> Reach:
        """As `Frame.reach`."""
        return SessionReach(parse_duration(self.gap), self.horizon_ms)


@dataclass(frozen=True, slots=True)
class CalendarUnit(Frame):
    """The hour, day, week or month that t is in, by the clocks of a zone, as far as it has come.

    See `stream_ml.features.time_zones.Calendar` for where each begins; days on which clocks are
    changed have 23 or 25 hours. With `previous` it is the whole one before.

    Attributes:
        unit: "hour", "day", "week" or "month".
        tz: the zone: such as "America/New_York".
        previous: whether the one before is meant.
    """

    unit: str
    tz: str
    previous: bool = False

    @property
    def name(self) -> str:
        """As `Frame.name`."""
        words = str(self.unit) if str(self.tz) == "UTC" else f"{self.unit} {self.tz}"
        return f"previous {words}" if self.previous is True else f"this {words}"

    @property
    def horizon_ms(self) -> int:
        """As `Frame.horizon_ms`."""
        return CALENDAR_UNITS[self.unit] * (2 if self.previous else 1)

    def mistakes(self) -> Iterator[Mistake]:
        """As `Frame.mistakes`."""
        if not is_text(self.unit) or self.unit not in CALENDAR_UNITS:
            yield f"one of {', '.join(CALENDAR_UNITS)}", brief(self.unit)
        yield from zone_mistakes(self.tz)
        yield from _flag_mistakes(self.previous)

    def describe(self) -> Any:
        """As `Frame.describe`."""
        return ["calendar", self.unit, self.tz, self.previous]

    def reach(self) -> Reach:
        """As `Frame.reach`."""
        begin = Calendar(self.unit, self.tz).begin
        if not self.previous:
            return TimeReach(begin)
        # Each calendar remembers one unit: two of them need not look again.
        former = Calendar(self.unit, self.tz).begin
        return TimeReach(lambda t: former(begin(t) - 1), begin)


@dataclass(frozen=True, slots=True)
class LastEvents(Frame):
    """The newest events before t, so many; of equal times those that came later in the log.

    Attributes:
        n: how many.
        within: how far back at most: one from before t - within is out.
    """

    is_by_clock = False
    n: int
    within: str | int

    @property
    def name(self) -> str:
        """As `Frame.name`."""
        return f"last {self.n}"

    @property
    def horizon_ms(self) -> int:
        """As `Frame.horizon_ms`."""
        return parse_duration(self.within)

    def mistakes(self) -> Iterator[Mistake]:
        """As `Frame.mistakes`."""
        if type(self.n) is not int or not 1 <= self.n <= LAST_EVENTS_MAX:
            yield f"a whole number of events from 1 to {LAST_EVENTS_MAX}", brief(self.n)
        yield from duration_mistakes(self.within)

    def describe(self) -> Any:
        """As `Frame.describe`."""
        return ["last", self.n, self.horizon_ms]

    def reach(self) -> Reach:
        """As `Frame.reach`."""
        return CountReach(self.n, self.horizon_ms)


@dataclass(frozen=True, slots=True)
class Nearby(Frame):
    """What lies around a moment of the past: [t - ago - tolerance, t - ago + tolerance], closed.

    Attributes:
        ago: how long before the event: such as "1d", or milliseconds.
        tolerance: how far from that moment at most; below `ago`.
    """

    ago: str | int
    tolerance: str | int

    @property
    def name(self) -> str:
        """As `Frame.name`."""
        return f"within {duration_words(self.tolerance)}"

    @property
    def horizon_ms(self) -> int:
        """As `Frame.horizon_ms`."""
        return parse_duration(self.ago) + parse_duration(self.tolerance)

    def mistakes(self) -> Iterator[Mistake]:
        """As `Frame.mistakes`."""
        mistakes = [*duration_mistakes(self.ago), *duration_mistakes(self.tolerance)]
        yield from mistakes
        if not mistakes and parse_duration(self.tolerance) >= parse_duration(self.ago):
            expected = f"a tolerance below {duration_words(self.ago)}, how long ago it is"
            yield expected, duration_words(self.tolerance)

    def describe(self) -> Any:
        """As `Frame.describe`."""
        return ["nearby", parse_duration(self.ago), parse_duration(self.tolerance)]

    def reach(self) -> Reach:
        """As `Frame.reach`."""
        horizon_ms = self.horizon_ms
        end_ms = parse_duration(self.ago) - parse_duration(self.tolerance) - 1
        return TimeReach(lambda t: t - horizon_ms, lambda t: t - end_ms)


def duration_words(duration: Any) -> str:
    """A duration as names show it; what is none as it is."""
    try:
        return duration_text(parse_duration(duration))
    except ValueError:
        return str(duration)


def duration_mistakes(duration: Any) -> Iterator[Mistake]:
    """Whether it is a duration.

    Args:
        duration: as it was declared, of any type.
    """
    try:
        parse_duration(duration)
    except ValueError:
        yield "a duration such as '30s', '10m', '1h', '7d' or milliseconds", brief(duration)


def _flag_mistakes(previous: Any) -> Iterator[Mistake]:
    if type(previous) is not bool:
        yield "`previous` to be True or False", brief(previous)
