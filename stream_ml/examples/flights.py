"""Will this flight arrive late? Every flight that left New York in 2013, asked an hour before.

`scheduled` events ask, 60 minutes before the planned departure. `departed`, `arrived` and hourly
`weather` events only feed windows: how late the airport, the carrier and the destination have
been, and how many flights are due that have not left. The label comes when the flight does.

`extended` has two features more, which a year of each of some fifty alone has shown to help
(`docs/figures.md`): a change to make in flight, by `stream-ml apply`.

Needs the data: `pip install "stream-ml[demo]"`, then `stream-ml demo`.
"""

from __future__ import annotations

import dataclasses

from river import linear_model, optim, preprocessing, tree

import stream_ml as sml

__all__ = ["extended", "flights"]

# The official sense of "late": 15 minutes or more.
LATE_MINUTES = 15


def _late(minutes: float | None) -> float | None:
    return None if minutes is None else float(minutes >= LATE_MINUTES)


late_departure = sml.function(_late, "dep_delay", name="late_departure")
late_arrival = sml.function(_late, "arr_delay", name="late_arrival")
# A flight 20 hours late says no more about the next one than a flight 3 hours late.
dep_delay = sml.clip("dep_delay", -15, 180)
arr_delay = sml.clip("arr_delay", -15, 180)


def due(hours: int) -> sml.Scalar:
    """Flights due in the last hours: announced an hour before, so one window less another."""
    return sml.difference(
        sml.window(f"{hours + 1}h").count(kind="scheduled"),
        sml.window("1h").count(kind="scheduled"),
    )


def backlog(hours: int) -> sml.Scalar:
    """Flights due in the last hours less those that left: delays that no delay shows yet."""
    left = sml.window(f"{hours}h").count(kind="departed")
    return sml.difference(due(hours), left).named(f"backlog {hours}h")


flights = sml.Pipeline(
    "flights",
    events=sml.Events(
        key="origin",
        fields={
            "kind": sml.Enum("scheduled", "departed", "arrived", "weather"),
            "origin": sml.Enum("EWR", "JFK", "LGA"),
            "carrier": sml.Optional[str],
            "dest": sml.Optional[str],
            "distance": sml.Optional[float],
            "dep_hour": sml.Optional[float],
            "dep_delay": sml.Optional[float],
            "arr_delay": sml.Optional[float],
            "dewp": sml.Optional[float],
            "pressure": sml.Optional[float],
            "visib": sml.Optional[float],
            "wind_speed": sml.Optional[float],
        },
    ),
    predict=sml.when(kind="scheduled"),
    features=[
        sml.field("distance"),
        sml.clip("dep_hour", 5, 8),
        sml.window("1h").mean(late_departure, kind="departed", fill=0.0),
        sml.window("1h").mean(late_arrival, kind="arrived", fill=0.0),
        sml.window("7d").mean(late_departure, kind="departed", fill=0.0),
        sml.window("3h", by="carrier").mean(late_departure, kind="departed", fill=0.0),
        sml.window("3h", by="carrier").mean(late_arrival, kind="arrived", fill=0.0),
        sml.window("7d", by="carrier").mean(late_departure, kind="departed", fill=0.0),
        sml.window("3h", by="dest").mean(dep_delay, kind="departed", fill=0.0),
        # What flights to there make up, or lose, on the way.
        sml.difference(
            sml.window("1d", by="dest").mean(arr_delay, kind="arrived"),
            sml.window("1d", by="dest").mean(dep_delay, kind="departed"),
            fill=0.0,
        ),
        sml.window("1h").count(kind="scheduled"),
        backlog(1),
        backlog(3),
        *(
            sml.window("6h").last(measure, kind="weather")
            for measure in ("dewp", "pressure", "visib", "wind_speed")
        ),
    ],
    label=sml.Label(bool, horizon="36h"),
    champion="sgd",
    models={
        "sgd": preprocessing.StandardScaler() | linear_model.LogisticRegression(),
        # Its intercept moves slowly: a snapshot taken at midnight should not freeze the evening.
        "adagrad": preprocessing.StandardScaler()
        | linear_model.LogisticRegression(optim.AdaGrad(0.02), intercept_lr=0.003),
        "tree": tree.HoeffdingTreeClassifier(max_depth=3),
    },
    # It shows what evidence and a daily refresh do: the guard would hand over on 15 January, after
    # two days of harm, and storms, which raise the loss for a day, would bring refreshes sooner.
    promotion=sml.Promotion(refresh="1d", first=5_000, on_harm="alert", on_change="alert"),
    # An hour has 40 flights: to compare so few costs more than it tells.
    monitors=sml.Monitors(block="6h"),
)

extended = dataclasses.replace(
    flights,
    features=[
        *flights.features,
        # A carrier's flights to a place are late again and again. Before any: the share of all.
        sml.window("30d", by=("carrier", "dest")).mean(late_arrival, kind="arrived", fill=0.25),
        # Is this hour worse than the week was?
        sml.ratio(
            sml.window("1h").mean(late_departure, kind="departed"),
            sml.window("7d").mean(late_departure, kind="departed"),
            fill=1.0,
        ),
    ],
)
