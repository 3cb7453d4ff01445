"""Every kind of window and aggregate equals its definition, through a whole pipeline."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from frames_oracle import (
    AUTUMN,
    FRAMES,
    HAVANA,
    HOWE_AUTUMN,
    HOWE_SPRING,
    LORD_HOWE,
    NEW_YORK,
    SPRING,
    disagreements,
    disagreements_of,
    random_records,
)

from stream_ml.features.aggregates import (
    Counts,
    DecayedVariance,
    DistinctApprox,
    First,
    Nearest,
    Quantile,
    SecondsSinceFirst,
    Slope,
    TopK,
)
from stream_ml.features.time_zones import Calendar
from stream_ml.features.windows import FramedBuffer
from stream_ml.features.windows.buffer import Buffer
from stream_ml.features.windows.frames import Frame, Hopping
from stream_ml.features.windows.reach import CountReach, SessionReach, TimeReach


@pytest.mark.parametrize("start", [SPRING, AUTUMN], ids=["spring", "autumn"])
def test_windows_over_a_change_of_clocks_equal_brute_force(start: datetime) -> None:
    """Late, simultaneous and duplicate events in three zones: no feature of a prediction is off."""
    assert disagreements(random_records(seed=1, count=200, start=start)) == []


# Where clocks are not changed on the days that they are elsewhere.
STARTS = {f"this hour {LORD_HOWE}": (HOWE_SPRING, HOWE_AUTUMN)}


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("seed", range(2))
def test_a_window_with_much_disorder_equals_brute_force(frame: str, seed: int) -> None:
    """With one key, where late events meet full windows, each window is as it is defined."""
    start = STARTS.get(frame, (SPRING, AUTUMN))[seed]

    assert disagreements_of(frame, random_records(seed, 150, start, keys=1)) == []


def _nothing(*_: Any) -> None:
    """Leave all as it is."""


def _find_later(reach: TimeReach, times: list[int], start: int, head: int, t: int) -> Any:
    return FIND(reach, times, start, head, t + 1)


def _find_all_before(reach: TimeReach, times: list[int], start: int, head: int, t: int) -> Any:
    return FIND(reach, times, start, head, t)[0], head


def _count_one_more(reach: CountReach, times: list[int], start: int, head: int, t: int) -> Any:
    return COUNT_BACK(CountReach(reach.n + 1, reach.within_ms), times, start, head, t)


def _count_whatever_age(reach: CountReach, *given: Any) -> Any:
    _, start, head, _ = given
    return max(start, head - reach.n), head


def _follow_short_gaps(reach: SessionReach, *given: Any) -> Any:
    return FOLLOW(SessionReach(reach.gap_ms - 20 * 60_000, reach.longest_ms), *given)


def _follow_without_end(reach: SessionReach, *given: Any) -> Any:
    return FOLLOW(SessionReach(reach.gap_ms, 10 * reach.longest_ms), *given)


def _insert_into_the_newer_session(buffer: FramedBuffer, t: int, x: Any) -> None:
    tails = [tail + 1 for tail in buffer.tails]
    INSERT_LATE(buffer, t, x)
    for k, (_, members) in enumerate(buffer.series.frames):
        buffer.tails[k] = max(tails[k], buffer.tails[k])
        for member in members:
            refilled = buffer._refill(member, buffer.tails[k], buffer.heads[k])
            buffer.aggregates[member] = refilled


def _need_nothing_late(buffer: FramedBuffer) -> int:
    return min(buffer.tails)


def _day_of_24_hours(calendar: Calendar, t: int) -> int:
    return t - (t + calendar._shift(t)) % 86_400_000


def _later_midnight(calendar: Calendar, day: Any) -> int:
    midnight = datetime(day.year, day.month, day.day, fold=1, tzinfo=calendar._zone)
    return round(midnight.timestamp() * 1_000)


def _multiples_after(frame: Hopping) -> TimeReach:
    every_ms, ahead_ms = frame.every_ms, frame.every_ms - frame.duration_ms
    return TimeReach(lambda t: (t - 1) // every_ms * every_ms + ahead_ms)


def _full_hour_before(*given: int) -> int:
    return given[1]


def _position_rounded_up(sketch: Quantile, t: int, q: float = 0.5) -> float | None:
    n = sum(sketch.counts.values())
    return QUANTILE(sketch, t, min(1.0, q + 1 / n) if n > 1 else q)


FIND, COUNT_BACK, FOLLOW = TimeReach.find, CountReach.find, SessionReach.follow
INSERT_LATE, QUANTILE = FramedBuffer._insert_late, Quantile.value
DAY, PAST_DAY, ANY = f"this day {NEW_YORK}", f"previous day {NEW_YORK}", "6h"
# What is planted where, and the window whose features show it.
PLANTED: dict[str, tuple[Any, str, Any, str]] = {
    "the asking event's equals are in": (TimeReach, "find", _find_later, "6h ago 1d"),
    "a past window has no end": (TimeReach, "find", _find_all_before, PAST_DAY),
    "a multiple is in the window before": (Hopping, "reach", _multiples_after, "3h tumbling"),
    "one event more": (CountReach, "find", _count_one_more, "last 7"),
    "events of any age": (CountReach, "find", _count_whatever_age, "last 7"),
    "a session ends early": (SessionReach, "follow", _follow_short_gaps, "session 40m"),
    "a session is never cut": (SessionReach, "follow", _follow_without_end, "session 40m"),
    "sessions are not joined": (
        FramedBuffer,
        "_insert_late",
        _insert_into_the_newer_session,
        "session 40m",
    ),
    "no late question is thought of": (
        FramedBuffer,
        "_first_needed",
        _need_nothing_late,
        "last 7",
    ),
    "all days have 24 hours": (Calendar, "begin", _day_of_24_hours, DAY),
    "a midnight is the later of two": (
        Calendar,
        "_first_moment",
        _later_midnight,
        f"this day {HAVANA}",
    ),
    "clocks change by hours": (Calendar, "_change", _full_hour_before, f"this hour {LORD_HOWE}"),
    "a quantile one further": (Quantile, "value", _position_rounded_up, ANY),
    "a sketch that forgets nothing": (DistinctApprox, "evict", _nothing, ANY),
    "a slope that forgets nothing": (Slope, "evict", _nothing, ANY),
    "a variance that forgets nothing": (DecayedVariance, "evict", _nothing, ANY),
    "the newest as the first": (First, "value", lambda first, _: _newest(first.values), ANY),
    "the newest time as the first": (
        SecondsSinceFirst,
        "value",
        lambda since, t: (t - since.times[-1]) / 1_000 if since.times else None,
        ANY,
    ),
    "the next rank": (TopK, "value", lambda top, t, k=1: float(TOP_K(top, t, k + 1) or 0), ANY),
    "the count of all": (Counts, "value", lambda counts, *_: float(len(counts.counts)), ANY),
    "the whole length as what is covered": (
        Frame,
        "covered_ms",
        lambda frame: lambda _: frame.horizon_ms,
        "3h every 30m",
    ),
    "the newest as the nearest": (Nearest, "value", lambda near, _: _newest(near.values), ANY),
}
TOP_K = TopK.value


def _newest(values: list[float]) -> float | None:
    return values[-1] if values else None


def _one_event_too_few(found: Any) -> Any:
    """A search for a window that leaves out its oldest event."""

    def find(*given: Any) -> tuple[int, int]:
        tail, head = found(*given)
        return min(tail + 1, head), head

    return find


@pytest.mark.parametrize("frame", FRAMES)
def test_an_event_too_few_is_seen_in_each_window(
    frame: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its kind; where it slides alone, it is one that is asked a moment too late."""
    if frame == ANY:
        read = Buffer.read
        monkeypatch.setattr(Buffer, "read", lambda buffer, t, given: read(buffer, t + 1, given))
    for kind in (TimeReach, CountReach, SessionReach):
        monkeypatch.setattr(kind, "find", _one_event_too_few(kind.find))
    monkeypatch.setattr(SessionReach, "follow", _one_event_too_few(SessionReach.follow))

    start = STARTS.get(frame, (AUTUMN,))[-1]
    assert disagreements_of(frame, random_records(2, 100, start)) != []


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_bug_is_seen(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With any one of these in it, the package does not equal brute force."""
    owner, name, bug, frame = PLANTED[planted]
    monkeypatch.setattr(owner, name, bug)

    assert disagreements_of(frame, random_records(2, 300, STARTS.get(frame, (AUTUMN,))[-1])) != []
