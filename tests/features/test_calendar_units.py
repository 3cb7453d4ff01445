"""Where the units of a zone's calendar begin, whatever its clocks do."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream_ml.features.time_zones import CALENDAR_UNITS, Calendar

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Clocks that are changed at night, at midnight, back over midnight (St John's, until 2011), by half
# an hour or by hours; and Samoa, which left out a day.
ZONES = (
    "UTC",
    "Europe/Rome",
    "America/New_York",
    "America/Havana",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Africa/Cairo",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Antarctica/Casey",
    "Antarctica/Troll",
    "Antarctica/Vostok",
    "Asia/Pyongyang",
    "Pacific/Apia",
)


def local(t: int, tz: str) -> datetime:
    """What the clocks of a zone show."""
    return (EPOCH + timedelta(milliseconds=t)).astimezone(ZoneInfo(tz))


def first_day(unit: str, day: date) -> date:
    """The first day of the unit that a day is in."""
    if unit == "month":
        return day.replace(day=1)
    return day - timedelta(days=day.weekday()) if unit == "week" else day


@given(
    unit=st.sampled_from(["day", "week", "month"]),
    tz=st.sampled_from(ZONES),
    t=st.integers(0, 4_000_000_000_000),
)
@example(unit="day", tz="America/Havana", t=1_741_497_000_000)  # midnight that was skipped
@example(unit="day", tz="America/Havana", t=1_762_061_400_000)  # midnight that came twice
@example(
    unit="day", tz="America/St_Johns", t=1_257_044_400_000
)  # a minute after midnight, and again before
@example(unit="day", tz="Pacific/Apia", t=1_325_239_200_000)  # 31 December 2011, after the 29th
@settings(max_examples=150, deadline=None)
def test_a_unit_begins_when_its_first_date_is_first_shown(unit: str, tz: str, t: int) -> None:
    """At its first moment the clocks show its first date, or a later one; before, never."""
    begin = Calendar(unit, tz).begin(t)
    day = first_day(unit, local(begin, tz).date())

    assert begin <= t
    assert t - begin < CALENDAR_UNITS[unit]
    assert local(begin - 1, tz).date() < day
    # The clocks may go back over a midnight: then they show a day that has ended.
    assert first_day(unit, local(t, tz).date()) in {day, first_day(unit, day - timedelta(days=1))}
    assert first_day(unit, local(t + 8 * 3_600_000, tz).date()) >= day


@given(tz=st.sampled_from(ZONES), t=st.integers(0, 4_000_000_000_000))
@example(tz="Australia/Lord_Howe", t=1_743_865_800_000)  # set back from 2:00 to 1:30, and 1:40
@example(tz="Australia/Lord_Howe", t=1_759_592_400_000)  # set forward from 2:00 to 2:30, and 2:40
@settings(max_examples=100, deadline=None)
def test_an_hour_begins_at_a_full_one_or_where_clocks_change(tz: str, t: int) -> None:
    """Within it clocks are not changed, and it is never longer than an hour."""
    begin = Calendar("hour", tz).begin(t)
    shown, shown_before = local(begin, tz), local(begin - 1, tz)

    assert 0 <= t - begin < 3_600_000
    assert local(t, tz).utcoffset() == shown.utcoffset()
    assert (shown.minute, shown.second, shown.microsecond) == (0, 0, 0) or (
        shown.utcoffset() != shown_before.utcoffset()
    )


@given(
    unit=st.sampled_from(["hour", "day", "week", "month"]),
    tz=st.sampled_from(ZONES),
    t=st.integers(0, 4_000_000_000_000),
    step_ms=st.integers(0, 40 * 86_400_000),
)
# Within the minute after midnight, and when the clocks show the day before again.
@example(unit="day", tz="America/St_Johns", t=1_257_042_630_000, step_ms=1_770_000)
@example(unit="hour", tz="America/St_Johns", t=1_257_042_630_000, step_ms=60_000)
@settings(max_examples=100, deadline=None)
def test_a_unit_never_begins_earlier_for_who_asks_later(
    unit: str, tz: str, t: int, step_ms: int
) -> None:
    """Windows only ever move on; and it does not matter what was asked before."""
    earlier, later = Calendar(unit, tz).begin(t), Calendar(unit, tz).begin(t + step_ms)
    calendar = Calendar(unit, tz)

    assert earlier <= later
    assert [calendar.begin(t), calendar.begin(t + step_ms)] == [earlier, later]
    assert [calendar.begin(t), calendar.begin(earlier)] == [earlier, earlier]


@pytest.mark.parametrize("unit", ["hour", "day", "week", "month"])
@pytest.mark.parametrize("tz", ["UTC", "America/New_York"])
def test_no_time_is_too_late_for_a_calendar(unit: str, tz: str) -> None:
    """An event at the largest time there is has its units, as every 400 years."""
    cycle_ms = 146_097 * 86_400_000
    t = 2**53
    early = t - (t - 1_700_000_000_000) // cycle_ms * cycle_ms
    cycles = (t - early) // cycle_ms

    assert (
        Calendar(unit, tz).begin(t)
        == Calendar(unit, tz).begin(early + cycle_ms) + (cycles - 1) * cycle_ms
    )
