"""Time zones by name, and the moments at which their days, weeks, months and hours begin."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from stream_ml.features.durations import DAY_MS, HOUR_MS
from stream_ml.schema import brief, is_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["CALENDAR_UNITS", "Calendar", "zone_mistakes", "zone_of"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
# The calendar repeats itself, weekdays and all, and so do the rules of a zone.
CYCLE_MS = 146_097 * DAY_MS
# From here on moments are taken a cycle or more earlier: datetimes end with the year 9999.
CYCLES_START_MS = 31 * CYCLE_MS // 10


def zone_of(tz: Any) -> tzinfo | None:
    """The zone of a name; None if there is none.

    Args:
        tz: as it was declared, of any type.
    """
    if not is_text(tz):
        return None
    if tz == "UTC":
        # Needs no time zone database, which not every machine has.
        return UTC
    try:
        return ZoneInfo(tz)
    except (ValueError, OSError, TypeError, AttributeError, KeyError):
        return None


def zone_mistakes(tz: Any) -> Iterator[tuple[str, str]]:
    """Whether a name is one of a zone, as expected and actual value in words."""
    if zone_of(tz) is None:
        yield "a time zone such as 'UTC' or 'America/New_York'", brief(tz)


def _day(day: date) -> date:
    return day


def _week(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _month(day: date) -> date:
    return day.replace(day=1)


# The first day of the unit that a day is in, and how many days it has at most.
_UNITS_OF_DAYS: dict[str, tuple[Callable[[date], date], int]] = {
    "day": (_day, 1),
    "week": (_week, 7),
    "month": (_month, 31),
}

# The units, and how long one may be at most: clocks were once set back by 7 hours (Vostok, 1994).
CALENDAR_UNITS = {
    "hour": HOUR_MS,
    "day": DAY_MS + 8 * HOUR_MS,
    "week": 7 * DAY_MS + 8 * HOUR_MS,
    "month": 31 * DAY_MS + 8 * HOUR_MS,
}


class Calendar:
    """The units of one kind of a zone's calendar, which follow each other without a gap.

    A day begins at the first moment at which the zone's clocks show its date (not all days have
    a midnight), a week with its Monday, a month with its first. An hour begins where the clocks
    show a full one, and where they are changed.

    Args:
        unit: one of `CALENDAR_UNITS`.
        tz: the zone's name.
    """

    __slots__ = ("_begin", "_days", "_end", "_find", "_first_day", "_zone")

    def __init__(self, unit: str, tz: str) -> None:
        zone = zone_of(tz)
        self._zone = UTC if zone is None else zone
        self._find = self._find_hour if unit == "hour" else self._find_days
        self._first_day, self._days = _UNITS_OF_DAYS.get(unit, (_day, 1))
        # The unit that was asked for last: the next question is about it, nearly always.
        self._begin = self._end = 0

    def begin(self, t: int) -> int:
        """The first moment of the unit that a moment is in.

        Args:
            t: UTC milliseconds.
        """
        if not self._begin <= t < self._end:
            cycles = max(0, (t - CYCLES_START_MS) // CYCLE_MS + 1)
            begin, end = self._find(t - cycles * CYCLE_MS)
            self._begin, self._end = begin + cycles * CYCLE_MS, end + cycles * CYCLE_MS
        return self._begin

    def _find_hour(self, t: int) -> tuple[int, int]:
        begin = t - self._local(t) % HOUR_MS
        end = begin + HOUR_MS
        shift = self._shift(t)
        if self._shift(begin) != shift:
            begin = self._change(begin, t)
        if self._shift(end - 1) != shift:
            end = self._change(t, end - 1)
        return begin, end

    def _find_days(self, t: int) -> tuple[int, int]:
        first = self._first_day(self._date(t))
        begin = self._first_moment(first)
        end = self._first_moment(self._next(first))
        while end <= t:  # the clocks went back over a midnight: they show a date that had ended
            first = self._next(first)
            begin, end = end, self._first_moment(self._next(first))
        return begin, end

    def _next(self, first: date) -> date:
        # From the first day of a month, 31 days on is in the next one.
        return self._first_day(first + timedelta(days=self._days))

    def _first_moment(self, day: date) -> int:
        """The first moment at which the clocks show a date, or, where it was left out, a later."""
        # Of a midnight that comes twice this is the first. One that was skipped is taken for the
        # moment of the change: clocks that were set forward over a midnight were so at midnight.
        midnight = datetime(day.year, day.month, day.day, tzinfo=self._zone)
        return (midnight.astimezone(UTC) - EPOCH) // MILLISECOND

    def _change(self, before: int, after: int) -> int:
        """The first moment at which clocks are as far from UTC as at `after`; not so at `before`.

        Args:
            before: a moment.
            after: a later one, with one change between them.
        """
        shift = self._shift(after)
        while after - before > 1:
            middle = (before + after) // 2
            if self._shift(middle) == shift:
                after = middle
            else:
                before = middle
        return after

    def _shift(self, t: int) -> int:
        """How far the clocks are ahead of UTC, in milliseconds."""
        offset = (EPOCH + timedelta(milliseconds=t)).astimezone(self._zone).utcoffset()
        return 0 if offset is None else offset // MILLISECOND

    def _local(self, t: int) -> int:
        return t + self._shift(t)

    def _date(self, t: int) -> date:
        return (EPOCH + timedelta(milliseconds=t)).astimezone(self._zone).date()
