"""Stretches of event time that a run is looked at by: hours, days or weeks, by its length."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from zoneinfo import ZoneInfo

__all__ = ["PAIRS_MIN", "Period", "Periods"]

T = TypeVar("T")

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * 60 * MINUTE_MS
WEEK_MS = 7 * DAY_MS
# 1970 began on a Thursday; weeks begin on Mondays.
MONDAY_MS = 4 * DAY_MS
# A curve of more points than these is a scribble.
PERIODS_MAX = 62
# Means of fewer pairs say more of luck than of models: they are no point of a curve.
PAIRS_MIN = 50
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - as some zone's clocks show it
# Clocks are changed at such moments alone.
CHANGE_MS = 15 * MINUTE_MS


@dataclass(frozen=True, slots=True)
class Period:
    """A length of time, by the name that people have for it."""

    name: str
    ms: int


PERIODS = (
    Period("minute", MINUTE_MS),
    Period("10 minutes", 10 * MINUTE_MS),
    Period("hour", 60 * MINUTE_MS),
    Period("6 hours", 360 * MINUTE_MS),
    Period("day", DAY_MS),
    Period("week", WEEK_MS),
    Period("4 weeks", 4 * WEEK_MS),
    Period("52 weeks", 52 * WEEK_MS),
)


class Periods:
    """The periods of a run: the shortest that are few enough, and full enough.

    >>> from zoneinfo import ZoneInfo
    >>> times = [day * DAY_MS // 100 for day in range(18_000)]
    >>> Periods(times, ZoneInfo("UTC")).period.name
    'week'

    Args:
        times: of the examples, UTC ms; at least one.
        zone: whose days and weeks are meant.
        counted: the times of those that fill a period; all of them by default.
        full: how many of those a period has on average.

    Attributes:
        period: the length of each.
    """

    def __init__(
        self,
        times: Sequence[int],
        zone: ZoneInfo,
        *,
        counted: Sequence[int] | None = None,
        full: int = 2 * PAIRS_MIN,
    ) -> None:
        self._times = times
        self._zone = zone
        count = len(times if counted is None else counted)
        first, span = min(times), max(times) - min(times)
        self.period = next(
            (
                period
                for period in PERIODS
                if span / period.ms <= PERIODS_MAX and count / (span // period.ms + 1) >= full
            ),
            next((p for p in PERIODS if span / p.ms <= PERIODS_MAX), PERIODS[-1]),
        )
        # Days, and what is longer, begin at midnight whatever was done to the clocks meanwhile; an
        # hour that the clocks show twice is two.
        self._offset_ms = _offset_ms(first, zone) if self.period.ms <= HOUR_MS else None
        local = [*self._local(times)]
        origin = MONDAY_MS if self.period.ms % WEEK_MS == 0 else 0
        self._start = min(local) - (min(local) - origin) % self.period.ms
        self._numbers = [(ms - self._start) // self.period.ms for ms in local]

    @property
    def pairs_min(self) -> int:
        """How many values a period needs; fewer where all have few."""
        return max(1, min(PAIRS_MIN, len(self._times) // (2 * (max(self._numbers) + 1))))

    def _local(self, times: Iterable[int]) -> Iterator[int]:
        """Times by the zone's clocks, as ms since these showed 1970."""
        offsets: dict[int, int] = {}
        for ms in times:
            if self._offset_ms is not None:
                yield ms + self._offset_ms
                continue
            moment = ms // CHANGE_MS
            if moment not in offsets:
                offsets[moment] = _offset_ms(moment * CHANGE_MS, self._zone)
            yield ms + offsets[moment]

    def middle(self, number: int) -> datetime:
        """The middle of a period, as the zone's clocks show it.

        Args:
            number: of the period, from 0.
        """
        return self._moment(self._start + number * self.period.ms + self.period.ms // 2)

    def label(self, number: int) -> str:
        """The beginning of a period as a row of a table says it.

        Args:
            number: of the period, from 0.
        """
        begin = self._moment(self._start + number * self.period.ms)
        return f"{begin:%Y-%m-%d}" if self.period.ms >= DAY_MS else f"{begin:%Y-%m-%d %H:%M}"

    def _moment(self, local_ms: int) -> datetime:
        if self._offset_ms is not None:
            return datetime.fromtimestamp((local_ms - self._offset_ms) / 1000, self._zone)
        return (EPOCH + timedelta(milliseconds=local_ms)).replace(tzinfo=self._zone)

    def means(self, values: Iterable[float | None]) -> dict[int, float]:
        """The mean of each period with enough values, by its number.

        Args:
            values: of each example; None where there is none.
        """
        return self.figures(values, lambda numbers: math.fsum(numbers) / len(numbers))

    def figures(
        self, values: Iterable[T | None], figure: Callable[[list[T]], float | None]
    ) -> dict[int, float]:
        """A figure of each period with enough values, by its number.

        Args:
            values: of each example; None where there is none.
            figure: of the values of a period; None where it has none.
        """
        groups: dict[int, list[T]] = defaultdict(list)
        for number, value in zip(self._numbers, values, strict=True):
            if value is not None:
                groups[number].append(value)
        results = {
            number: figure(group)
            for number, group in sorted(groups.items())
            if len(group) >= self.pairs_min
        }
        return {number: value for number, value in results.items() if value is not None}


def _offset_ms(ms: int, zone: ZoneInfo) -> int:
    """How far the zone's clocks are ahead of UTC."""
    offset = datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone).utcoffset()
    return 0 if offset is None else round(offset.total_seconds() * 1000)
