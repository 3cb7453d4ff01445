"""What is compared with the past: a change is found and named, and what is usual is none."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from stream_ml.monitoring.columns import NumberColumn, column
from stream_ml.monitoring.story import column_message
from stream_ml.monitoring.units import unit_factor
from stream_ml.monitoring.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stream_ml.monitoring.columns import Column
    from stream_ml.monitoring.watch import Finding

HOUR = 3_600_000
FIRST = 1_704_067_200_000  # a Monday
CHANGE = 10 * 24
Row = dict[str, Any]
Found = list[tuple[int, "Finding"]]


def usual(rand: random.Random, hour: int) -> Row:
    """A row of a world with a daily and a weekly cycle."""
    level = 0.8 * math.sin(hour % 24 / 24 * math.tau)
    weekend = hour % 168 >= 120
    return {
        "amount": round(math.exp(3.5 + 0.8 * (rand.gauss(0, 1) + level)), 2),
        "distance": math.exp(2 + rand.gauss(0, 1) + 0.8 * weekend),
        "channel": rand.choice(("chip", "chip", "online", "phone")),
    }


def block(rows: list[Row]) -> dict[str, Column]:
    """The columns of some rows."""
    columns: dict[str, Column] = {}
    for name in ("amount", "distance", "channel"):
        columns[name] = column(is_number=name != "channel")
        columns[name].add([row[name] for row in rows])
    return columns


def watched(
    seed: int,
    hours: int,
    change: Callable[[Row, random.Random], Row] | None = None,
    *,
    stop: int = -1,
) -> tuple[Found, list[tuple[int, str]], bytes]:
    """What opens and closes when, in hours, and the state at the end.

    From the 10th day on rows are changed, for two days. State is written down and taken up at an
    hour.
    """
    rand = random.Random(seed)
    watch, entries = Watch(HOUR, "w"), {}
    opened: Found = []
    closed: list[tuple[int, str]] = []
    for hour in range(hours):
        if hour == stop:
            entries.update(watch.dirty())
            state = orjson.loads(orjson.dumps(watch.dump()))
            watch = Watch(HOUR, "w")
            watch.load(state, entries)
        count = rand.randrange(15, 25) if hour % 168 >= 120 else rand.randrange(40, 80)
        rows = [usual(rand, hour) for _ in range(count)]
        if change is not None and CHANGE <= hour < CHANGE + 48:
            rows = [change(row, rand) for row in rows]
        found, ended = watch.take(
            FIRST + hour * HOUR, block(rows), ("amount", "distance", "channel")
        )
        opened += [(hour, finding) for finding in found]
        closed += [(hour, name) for name in ended]
    entries.update(watch.dirty())
    return opened, closed, orjson.dumps([watch.dump(), sorted(entries)])


CHANGES: dict[str, tuple[str, str, Callable[[Row, random.Random], Row]]] = {
    "cents": ("amount", "units", lambda row, _: {**row, "amount": 100 * row["amount"]}),
    "frozen": ("distance", "frozen", lambda row, _: {**row, "distance": 7.4}),
    "nulls": (
        "amount",
        "missing",
        lambda row, rand: {**row, "amount": row["amount"] if rand.random() < 0.4 else None},
    ),
    "new": (
        "channel",
        "category",
        lambda row, rand: {**row, "channel": "wallet" if rand.random() < 0.25 else row["channel"]},
    ),
    "larger": ("amount", "shift", lambda row, _: {**row, "amount": 3 * row["amount"]}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_found_soon_named_and_over_when_it_is_over(name: str) -> None:
    """The column, and the sign of it, within five hours; and its end within five hours of that."""
    expected, sign, change = CHANGES[name]
    opened, closed, _ = watched(3, CHANGE + 60, change)

    assert {(expected, sign)} >= {(finding.column, finding.sign) for _, finding in opened[:1]}
    assert [expected] == sorted({finding.column for _, finding in opened})
    assert CHANGE <= opened[0][0] <= CHANGE + 5
    assert [expected] == [name for _, name in closed]
    assert CHANGE + 48 <= closed[0][0] <= CHANGE + 53


def test_fewer_missing_values_than_usual_are_no_fault() -> None:
    """A field that lacked in three events of ten, and lacks no more, has moved; nothing broke."""
    rand = random.Random(4)
    watch, found = Watch(HOUR, "w"), []
    for hour in range(CHANGE + 12):
        rows = [usual(rand, hour) for _ in range(60)]
        for row in rows:
            if hour < CHANGE and rand.random() < 0.3:
                row["amount"] = None
        found += watch.take(FIRST + hour * HOUR, block(rows), ("amount",))[0]
    assert [("amount", "shift")] == [(each.column, each.sign) for each in found]
    assert "the field amount is missing in 0% of the records of a block, usually in 3" in (
        column_message(replace(found[0], column="field:amount"))
    )


def test_the_factor_between_units_is_named() -> None:
    """Cents for whole units are told to be a hundred times as large."""
    opened, _, _ = watched(3, CHANGE + 3, CHANGES["cents"][2])
    assert [100.0] == [finding.figures["factor"] for _, finding in opened]


@pytest.mark.parametrize("seed", range(2))
def test_a_daily_and_a_weekly_cycle_are_no_drift(seed: int) -> None:
    """Four weeks in which every hour and weekend differs from the others raise nothing."""
    assert ([], []) == watched(seed, 28 * 24)[:2]


@pytest.mark.parametrize("stop", [CHANGE - 1, CHANGE + 1, CHANGE + 30])
def test_a_watch_goes_on_alike_from_its_state(stop: int) -> None:
    """Written down and taken up anywhere, it finds the same and comes to the same state."""
    change = CHANGES["nulls"][2]
    assert watched(5, CHANGE + 60, change) == watched(5, CHANGE + 60, change, stop=stop)


def test_what_lasts_a_week_is_usual_then() -> None:
    """A world that has changed for good is told once, and resolved after a week."""
    rand = random.Random(1)
    watch = Watch(HOUR, "w")
    events = []
    for hour in range(20 * 24):
        rows = [usual(rand, hour) for _ in range(40)]
        if hour >= CHANGE:
            rows = [CHANGES["larger"][2](row, rand) for row in rows]
        found, ended = watch.take(FIRST + hour * HOUR, block(rows), ("amount",))
        events += [(hour // 24, finding.column) for finding in found]
        events += [(hour // 24, f"{name} ended") for name in ended]
    assert [(10, "amount"), (17, "amount ended")] == events


def weather(seed: int, days: int) -> list[float]:
    """Hourly readings of what stays for days, round no cycle: a random walk that is drawn back."""
    rand = random.Random(seed)
    readings, level = [], 0.0
    for _ in range(24 * days):
        level = 0.985 * level + rand.gauss(0, 1.0)
        readings.append(level)
    return readings


def told(columns: Iterable[tuple[int, float]]) -> tuple[list[int], list[int]]:
    """The days on which it is told that a column has moved, and the hours when that is over.

    Each hour has its level; blocks are of six hours.
    """
    rand = random.Random(9)
    watch = Watch(6 * HOUR, "w")
    days: list[int] = []
    ends: list[int] = []
    rows: list[float] = []
    for hour, level in columns:
        rows += [level + rand.gauss(0, 0.3) for _ in range(20)]
        if hour % 6 == 5:
            values = column(is_number=True)
            values.add(rows)
            found, ended = watch.take(FIRST + (hour - 5) * HOUR, {"level": values}, ("level",))
            days += [hour // 24 for _ in found]
            ends += [hour + 1 for _ in ended]
            rows = []
    return days, ends


@pytest.mark.parametrize("seed", range(4))
def test_weather_that_stays_for_days_is_no_drift(seed: int) -> None:
    """Of a column that no hour of the week explains nothing is told but the once that is new."""
    assert len(told(enumerate(weather(seed, 56)))[0]) <= 1


def test_what_comes_again_is_told_again_only_if_it_goes_further_or_after_a_long_rest() -> None:
    """Days that are off in weeks 3, 5, 7 as far, in week 9 further, and as far in week 19."""
    off = {14: 0.5, 28: 0.5, 42: 0.5, 56: 1.5, 126: 1.5}
    cycle = [(hour, off.get(hour // 24, 0.0)) for hour in range(24 * 130)]
    assert [14, 56, 126] == told(cycle)[0]


def test_a_day_of_which_only_a_part_was_usual_is_not_compared_as_a_whole() -> None:
    """An evening is told of by its blocks, and is over with the third block after it."""

    def level(hour: int) -> float:
        is_off = hour // 24 == 22 and hour % 24 >= 12
        return 9.0 if is_off else (0.0 if hour % 24 < 12 else 4.0)

    assert ([22], [23 * 24 + 18]) == told([(hour, level(hour)) for hour in range(24 * 26)])


@pytest.mark.parametrize("seed", range(6))
def test_what_a_day_has_told_is_not_over_for_three_hours_that_are_short_of_it(seed: int) -> None:
    """A share of .41 that is .64 from day 11 on: an hour of 60 labels shows it now and then."""
    rand = random.Random(seed)
    watch = Watch(HOUR, "w")
    events: list[tuple[int, str]] = []
    for hour in range(24 * 14):
        values = column(is_number=False)
        share = 0.64 if hour >= 24 * 11 else 0.41
        values.add([str(rand.random() < share) for _ in range(60)])
        found, ended = watch.take(FIRST + hour * HOUR, {"label": values}, ("label",))
        events += [(hour // 24, finding.column) for finding in found]
        events += [(hour // 24, f"{name} ended") for name in ended]

    assert events in ([(11, "label")], [(12, "label")])


def test_what_is_mostly_one_value_has_no_unit_to_be_known_by() -> None:
    """Fog: a field that was nearly always 10 is 0.25, and may be in any unit."""
    rand = random.Random(2)
    clear, fog = column(is_number=True), column(is_number=True)
    clear.add([10.0 if rand.random() < 0.9 else rand.uniform(2, 9) for _ in range(400)])
    fog.add([0.25] * 60)
    assert isinstance(clear, NumberColumn)
    assert isinstance(fog, NumberColumn)
    assert unit_factor(fog, clear) is None
