"""Windows of every kind by brute force, over changes of clocks. Shares no code with the package.

    $ python -m tests.features.frames_oracle --events 50000

drives a whole pipeline over so many events, late, simultaneous and duplicate ones among them, and
compares each feature of each prediction with the definition, by looking at all that came before.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
from river import linear_model

import stream_ml as sml
from stream_ml.features import FeatureSet
from stream_ml.records import Event
from stream_ml.schema import Enum, FieldType
from stream_ml.testing import Driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stream_ml.features import Window

__all__ = ["AUTUMN", "SPRING", "disagreements", "disagreements_of", "random_records"]

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
LATENESS_MS = 2 * HOUR_MS
HALF_LIFE_MS = 5 * HOUR_MS
PART_EVENTS = 5_000
# New York changes its clocks at 2:00, Havana at midnight (so that a day begins at 1:00, and one
# midnight comes twice), Lord Howe by half an hour.
NEW_YORK, HAVANA, LORD_HOWE = "America/New_York", "America/Havana", "Australia/Lord_Howe"
SPRING, AUTUMN = datetime(2025, 3, 7, tzinfo=UTC), datetime(2025, 10, 31, tzinfo=UTC)
HOWE_SPRING, HOWE_AUTUMN = datetime(2025, 10, 3, tzinfo=UTC), datetime(2025, 4, 4, tzinfo=UTC)

FRAMES: dict[str, Callable[..., Window]] = {
    "6h": lambda by: sml.window("6h", by),
    "6h ago 1d": lambda by: sml.window("6h", by, ago="1d"),
    "3h tumbling": lambda by: sml.tumbling("3h", by),
    "3h tumbling previous": lambda by: sml.tumbling("3h", by, previous=True),
    "3h every 30m": lambda by: sml.hopping("3h", "30m", by),
    "3h every 30m previous": lambda by: sml.hopping("3h", "30m", by, previous=True),
    "session 40m": lambda by: sml.session("40m", by, longest="2h"),
    "last 7": lambda by: sml.last_events(7, by, within="9h"),
    f"this hour {LORD_HOWE}": lambda by: sml.calendar("hour", LORD_HOWE, by),
    f"this day {NEW_YORK}": lambda by: sml.calendar("day", NEW_YORK, by),
    f"previous day {NEW_YORK}": lambda by: sml.calendar("day", NEW_YORK, by, previous=True),
    f"this day {HAVANA}": lambda by: sml.calendar("day", HAVANA, by),
    f"previous day {HAVANA}": lambda by: sml.calendar("day", HAVANA, by, previous=True),
    f"this week {HAVANA}": lambda by: sml.calendar("week", HAVANA, by),
    f"this month {NEW_YORK}": lambda by: sml.calendar("month", NEW_YORK, by),
}
KINDS = ("a", "b", "c")
FIELDS: dict[str, Any] = {"x": float, "kind": sml.Enum(*KINDS), "text": str}


def random_records(seed: int, count: int, start: datetime, keys: int = 2) -> list[dict[str, Any]]:
    """Events of some days from `start`, a quarter of them late, some twice, many at one time."""
    rand = random.Random(seed)
    now = round(start.timestamp() * 1_000)
    mean_ms = 5 * DAY_MS // count if count <= 4_000 else 40 * DAY_MS // count
    records: list[dict[str, Any]] = []
    for number in range(count):
        if rand.random() < 0.7:
            now += rand.choice((1, mean_ms, mean_ms // 60_000 * MINUTE_MS, 3 * mean_ms))
        if rand.random() < 0.002:
            now += 11 * HOUR_MS
        if rand.random() < 0.1:  # whole hours are where windows begin and end
            now += -now % (30 * MINUTE_MS)
        late = rand.random() < 0.25
        records.append(
            {
                "event_id": str(number),
                "ts": now - rand.randrange(LATENESS_MS + 1) if late else now,
                "key": f"key {rand.randrange(keys)}",
                "x": rand.choice((rand.gauss(0, 1), rand.gauss(0, 1) * 1e3, 1.0, 2.0, 0.0)),
                "kind": rand.choice(KINDS),
                "text": str(rand.randrange(40)),
            }
        )
        if rand.random() < 0.03:
            records.append(rand.choice(records[-50:]))
    return records


def declared(frames: Iterable[str] = FRAMES) -> list[Any]:
    """Every aggregate of every window, of a key and of a group; the name tells which."""
    features: list[Any] = []
    for name, make in ((frame, FRAMES[frame]) for frame in frames):
        for group, by, filters in (("all", None, {}), ("kind", "kind", {"text": LOW_TEXTS})):
            window = make(by)
            answers = {
                "count": window.count(**filters),
                "sum": window.sum("x", **filters),
                "first": window.first("x", **filters),
                "since_first": window.time_since_first(**filters),
                "since_last": window.time_since_last(**filters),
                "median": window.median("x", **filters),
                "rate": window.rate(per="1m", **filters),
            }
            if group == "all":
                answers |= {
                    "max": window.max("x"),
                    "last": window.last("x"),
                    "variance": window.variance("x"),
                    "slope": window.slope("x", per="1h"),
                    "q90": window.quantile("x", 0.9),
                    "decayed_variance": window.decayed_variance("x", half_life=HALF_LIFE_MS),
                    "distinct": window.distinct("text"),
                    "distinct_approx": window.distinct_approx("text"),
                    "counts": window.counts("kind"),
                    "top_k": window.top_k("text", 3),
                    "rate_x": window.rate("x", per="1h"),
                }
            features += [answers[each].named(f"{group}/{name}/{each}") for each in answers]
    features.append(sml.lag("x", "1d", tolerance="20m").named("lag"))
    return features


LOW_TEXTS = tuple(str(number) for number in range(25))


def pipeline() -> sml.Pipeline:
    """A pipeline that predicts every event."""
    return sml.Pipeline(
        name="frames",
        events=sml.Events(
            key="key",
            time="ts",
            lateness=LATENESS_MS,
            fields=FIELDS,
        ),
        label=sml.Label(bool, horizon="1h"),
        predict=sml.when(),
        features=declared(),
        models={"line": linear_model.LogisticRegression()},
        champion="line",
    )


class History:
    """All events by group, each with the keys of the calendar units that it is in."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self.events = events
        self.times = np.array([event["ts"] for event in events])
        self.x = np.array([event["x"] for event in events])
        self.units = {
            (zone, unit): np.array([_unit(event["ts"], zone, unit) for event in events])
            for zone, unit in (
                (LORD_HOWE, "hour"),
                (NEW_YORK, "day"),
                (HAVANA, "day"),
                (HAVANA, "week"),
                (NEW_YORK, "month"),
            )
        }
        self.groups: dict[Any, list[int]] = {}

    def before(self, number: int, group: Any) -> np.ndarray:
        """The events of a group that came before, at times before this one's, in order of time."""
        came = np.array(self.groups.get(group, []), dtype=int)
        came = came[self.times[came] < self.times[number]]
        return came[np.argsort(self.times[came], kind="stable")]

    def remember(self, number: int) -> None:
        """An event has come."""
        event = self.events[number]
        self.groups.setdefault((event["key"],), []).append(number)
        if event["text"] in LOW_TEXTS:
            self.groups.setdefault((event["key"], event["kind"]), []).append(number)


def _unit(t: int, zone: str, unit: str) -> int:
    """A number of the unit that a moment is in: the same for all moments in it, and no others."""
    local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=t)).astimezone(
        ZoneInfo(zone)
    )
    if unit == "hour":
        offset = local.utcoffset()
        assert offset is not None
        return (local.toordinal() * 24 + local.hour) * 10_000 + round(offset.total_seconds() / 60)
    if unit == "month":
        return local.year * 12 + local.month
    return local.toordinal() if unit == "day" else (local.toordinal() - 1) // 7


def inside(frame: str, history: History, number: int, came: np.ndarray) -> np.ndarray:
    """Those of the events before one that a window of it holds, by its definition."""
    t, times = int(history.times[number]), history.times[came]
    if frame == "6h":
        return came[times >= t - 6 * HOUR_MS]
    if frame == "6h ago 1d":
        return came[(times >= t - 30 * HOUR_MS) & (times < t - DAY_MS)]
    if frame.startswith("3h"):
        return came[_hopping(frame, t, times)]
    if frame == "session 40m":
        return came[_session(t, times)]
    if frame == "last 7":
        return came[-7:][times[-7:] >= t - 9 * HOUR_MS]
    which, unit, zone = frame.split(" ")
    units = history.units[zone, unit]
    return came[units[came] == units[number] - (which == "previous")]


def _hopping(frame: str, t: int, times: np.ndarray) -> np.ndarray:
    """Of all windows that could be meant, the one that is."""
    step = 30 * MINUTE_MS if "every" in frame else 3 * HOUR_MS
    begins = range((t // step - 20) * step, (t // step + 2) * step, step)
    if "previous" in frame:
        begin = max(begin for begin in begins if begin + 3 * HOUR_MS <= t)
    else:
        begin = min(begin for begin in begins if begin <= t < begin + 3 * HOUR_MS)
    return (times >= begin) & (times < begin + 3 * HOUR_MS)


def _session(t: int, times: np.ndarray) -> np.ndarray:
    later = np.append(times[1:], t)
    is_linked = later - times <= 40 * MINUTE_MS
    linked = np.logical_and.accumulate(is_linked[::-1])[::-1] if len(times) else is_linked
    return linked & (times >= t - 2 * HOUR_MS)


def covered_ms(frame: str, t: int, times: np.ndarray) -> int:
    """How much time a window covers, for its rate; units of the calendar by looking minute-wise."""
    if frame in ("session 40m", "last 7"):
        return t - int(times[0]) if len(times) else 0
    if frame.startswith("6h"):
        return 6 * HOUR_MS
    if frame.startswith("3h"):
        if "previous" in frame:
            return 3 * HOUR_MS
        step = 30 * MINUTE_MS if "every" in frame else 3 * HOUR_MS
        return t - (t // step * step + step - 3 * HOUR_MS)
    which, unit, zone = frame.split(" ")
    end = t if which == "this" else _begin(t, zone, unit)
    return end - _begin(end if which == "this" else end - 1, zone, unit)


BEGINS: dict[Any, int] = {}


def _begin(t: int, zone: str, unit: str) -> int:
    """The first moment of a unit: going back by minutes until another one is met."""
    present = _unit(t, zone, unit)
    if (zone, unit, present) not in BEGINS:
        minute = t - t % MINUTE_MS
        while _unit(minute - 1, zone, unit) == present:
            minute -= MINUTE_MS
        BEGINS[zone, unit, present] = minute
    return BEGINS[zone, unit, present]


def answers(
    frame: str, history: History, number: int, chosen: np.ndarray
) -> dict[str, float | None]:
    """What every aggregate is by its textbook definition; None where it is left out."""
    t, times, x = int(history.times[number]), history.times[chosen], history.x[chosen]
    n, covered = len(chosen), covered_ms(frame, t, times)
    texts = Counter(history.events[i]["text"] for i in chosen)
    kinds = Counter(history.events[i]["kind"] for i in chosen)
    ranks = [*sorted(texts.values(), reverse=True), 0, 0, 0]
    total = math.fsum(x)
    found: dict[str, float | None] = {
        "count": n,
        "sum": total,
        "distinct": len(texts),
        "distinct_approx": len(texts),
        "rate": n * MINUTE_MS / covered if covered else None,
        "rate_x": total * HOUR_MS / covered if covered else None,
        **{f"counts={kind}": kinds[kind] for kind in KINDS},
        **{f"top_k={rank + 1}": ranks[rank] for rank in range(3)},
    }
    if n:
        ordered = np.sort(x)
        found |= {
            "first": x[0],
            "last": x[-1],
            "max": ordered[-1],
            "since_first": (t - times[0]) / 1_000,
            "since_last": (t - times[-1]) / 1_000,
            "median": ordered[int(0.5 * (n - 1))],
            "q90": ordered[int(0.9 * (n - 1))],
        }
    return found | (_spreads(t, times, x) if n > 1 else {})


def _spreads(t: int, times: np.ndarray, x: np.ndarray) -> dict[str, float | None]:
    mean = math.fsum(x) / len(x)
    weights = 0.5 ** ((t - times) / HALF_LIFE_MS)
    center = math.fsum(weights * x) / math.fsum(weights)
    hours = (times - times[0]) / HOUR_MS
    hours = hours - hours.mean()
    spread = math.fsum(hours * hours)
    return {
        "variance": math.fsum((x - mean) ** 2) / (len(x) - 1),
        "decayed_variance": math.fsum(weights * (x - center) ** 2) / math.fsum(weights),
        "slope": math.fsum(hours * (x - mean)) / spread if times[0] < times[-1] else None,
    }


def lag(history: History, number: int, came: np.ndarray) -> float | None:
    """The value nearest to a day before."""
    moment = int(history.times[number]) - DAY_MS
    near = [
        (abs(int(history.times[i]) - moment), -int(history.times[i]), -int(i))
        for i in came
        if abs(int(history.times[i]) - moment) <= 20 * MINUTE_MS
    ]
    return float(history.x[-min(near)[2]]) if near else None


def _agrees(name: str, expected: float | None, given: float | None) -> bool:
    if expected is None or given is None:
        return expected is given
    if name in ("median", "q90"):
        return abs(given - expected) <= abs(expected) / 128
    if name == "distinct_approx":
        return abs(given - expected) <= max(2.0, 0.2 * expected)
    if name in ("sum", "variance", "decayed_variance", "slope", "rate", "rate_x"):
        # The oracle rounds sums of squares of up to 1e6.
        return math.isclose(expected, given, rel_tol=1e-9, abs_tol=1e-6)
    return expected == given


def disagreements(records: Sequence[dict[str, Any]], ask_every: int = 1) -> list[str]:
    """Where a pipeline and the definitions differ, in words; stops after some.

    Args:
        records: the events, as they are published.
        ask_every: of how many predictions one is compared.
    """
    with Driver(pipeline()) as driver:
        driver.publish("events", records)
        driver.run()
        predictions = {each["event_id"]: each["features"] for each in driver.read("predictions")}
    return _compared(records, predictions, FRAMES, ask_every)


def disagreements_of(frame: str, records: Sequence[dict[str, Any]]) -> list[str]:
    """As `disagreements`, of the features of one window, without a pipeline around them.

    Args:
        frame: one of `FRAMES`.
        records: the events, as they are published.
    """
    state = FeatureSet(declared([frame]), pipeline_schema(), LATENESS_MS).new_state()
    found: dict[str, dict[str, float]] = {}
    watermark = 0
    for record in records:
        fields = {name: record[name] for name in FIELDS}
        event = Event(record["event_id"], record["ts"], record["key"], fields)
        if event.event_id not in found:
            watermark = max(watermark, event.ts)
            state.advance(watermark)
            found[event.event_id] = state.features(event)
            state.insert(event)
    return _compared(records, found, [frame], 1)


def pipeline_schema() -> dict[str, FieldType]:
    """The fields as a feature set knows them."""
    return {"x": FieldType("float"), "kind": Enum(*KINDS), "text": FieldType("str")}


def _compared(
    records: Sequence[dict[str, Any]],
    given: dict[str, dict[str, float]],
    frames: Iterable[str],
    ask_every: int,
) -> list[str]:
    events = list({record["event_id"]: record for record in records}.values())
    found = [] if len(given) == len(events) else [f"{len(given)} answers to {len(events)} events"]
    history = History(events)
    for number, event in enumerate(events):
        if number % ask_every == 0:
            found += _differences(history, number, given[event["event_id"]], frames)
        history.remember(number)
        if len(found) > 20:
            break
    return found


def _differences(
    history: History, number: int, given: dict[str, float], frames: Iterable[str]
) -> list[str]:
    event, found = history.events[number], []
    for group, key in (("all", (event["key"],)), ("kind", (event["key"], event["kind"]))):
        came = history.before(number, key)
        for frame in frames:
            expected = answers(frame, history, number, inside(frame, history, number, came))
            for column in COLUMNS[group]:
                name = f"{group}/{frame}/{column}"
                right, answer = expected.get(column), given.get(name)
                if not _agrees(column.partition("=")[0], right, answer):
                    found.append(f"event {number} at {event['ts']}: {name} {answer} not {right}")
        if group == "all" and not _agrees("lag", lag(history, number, came), given.get("lag")):
            found.append(f"event {number}: lag {given.get('lag')}")
    return found


_SIX = ("count", "sum", "first", "since_first", "since_last", "median", "rate")
COLUMNS = {
    "kind": _SIX,
    "all": (
        *_SIX,
        *("max", "last", "variance", "slope", "q90", "decayed_variance", "distinct"),
        *("distinct_approx", "rate_x"),
        *(f"counts={kind}" for kind in KINDS),
        *(f"top_k={rank}" for rank in (1, 2, 3)),
    ),
}


def main() -> int:
    """Compare over many events, in parts of 5,000 within 40 days around a change of clocks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_args()
    # Lord Howe changes its clocks in these days as well.
    starts = SPRING - timedelta(days=2), AUTUMN - timedelta(days=30)
    for seed in range(options.events // PART_EVENTS):
        records = random_records(seed, PART_EVENTS, starts[seed % 2], keys=3)
        found = disagreements(records, options.every)
        head = f"{len(records)} records from {starts[seed % 2]:%d %B}: {len(found)} differences"
        sys.stdout.write("\n".join([head, *found[:9], ""]))
        sys.stdout.flush()
        if found:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
