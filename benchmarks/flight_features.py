"""What each further feature is worth to the flights: the served log loss of a year, each alone.

    python -m benchmarks.flight_features [--months 12] [--check]

The example's line `adagrad` alone serves, and once more with one feature besides, or several. It
serves as the system serves: snapshots of the refresh instants answer from the next round of
records on, and a label is learned when the flight has arrived. One run of the real feature set
makes all columns; then lines that differ in what they see learn side by side
(`benchmarks.evidence` writes river's scaler and logistic regression with AdaGrad over all lines at
once). There is no log, no guard and no gate. A year takes some nine minutes of CPU.

`--check` replays the months on a log as well, by river and the stages, and says by how much losses
of served predictions differ: in January by 1.5e-14 at most.

Printed are, for each line, the log loss of what was served, the gain beside the example's
features, how many standard errors over days that is (a day's flights share their weather), and in
how many months it was better.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import math
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

import stream_ml as sml
from benchmarks.evidence import DAY_MS, Lines
from stream_ml.examples.flights import arr_delay, dep_delay, flights, late_arrival, late_departure
from stream_ml.features.sparse import is_sparse
from stream_ml.records import Event
from stream_ml.shell import flights_data
from stream_ml.shell.embedded.replay import output_of, replay
from stream_ml.shell.embedded.runner import ROUND_RECORDS
from stream_ml.shell.log.reading import examples
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.stages.refresh_clock import RefreshClock
from stream_ml.stages.watermark import Watermark

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

KEY = b"benchmark".ljust(32, b".")
CERTAIN = 1e-9
SMOOTHING = 50.0
ZONE = "America/New_York"
# What the example's `extended` has besides, by the names below.
EXTENDED = ("late arrivals: 30 days of carrier to dest", "late departures: hour to 7 days, ratio")

HOUR: Any = sml.hour_of_day(ZONE)
CARRIER, DEST = sml.hashed("carrier", 64), sml.hashed("dest", 512)
ROUTE = sml.cross("carrier", "dest", width=4096).named("route")
ORIGIN_DEST = sml.cross("origin", "dest", width=4096).named("way")
ORIGIN_CARRIER = sml.cross("origin", "carrier", width=1024).named("desk")
ORIGIN_HOUR = sml.cross("origin", HOUR, width=1024).named("hour")
CARRIER_HOUR = sml.cross("carrier", HOUR, width=4096).named("turn")
day = sml.calendar("day", tz=ZONE)
yesterday = sml.calendar("day", tz=ZONE, previous=True)
left: dict[str, Any] = {"kind": "departed", "fill": 0.0}
came: dict[str, Any] = {"kind": "arrived", "fill": 0.0}


def _backlog(window: sml.Window, by: str | None = None) -> sml.Scalar:
    """Flights due in the window, announced an hour before, less those that have left."""
    due = sml.difference(
        window.count(kind="scheduled"), sml.window("1h", by=by).count(kind="scheduled")
    )
    return sml.difference(due, window.count(kind="departed"), fill=0.0)


def _last(window: sml.Window) -> Any:
    return window.last(dep_delay, **left)


def _late(window: sml.Window) -> Any:
    return window.mean(late_departure, **left)


def _late_arrivals(duration: str, *by: str) -> sml.Scalar:
    # Where there is none yet: the share of all.
    return sml.window(duration, by=by).mean(late_arrival, kind="arrived", fill=0.25)


FEATURES: dict[str, list[sml.Feature]] = {
    'hashed("carrier", 64)': [CARRIER],
    'hashed("dest", 512)': [DEST],
    "hashed carrier x dest": [ROUTE],
    "hashed origin x dest": [ORIGIN_DEST],
    "hashed origin x carrier": [ORIGIN_CARRIER],
    "hashed origin x hour": [ORIGIN_HOUR],
    "hashed carrier x hour": [CARRIER_HOUR],
    'one_hot("origin")': [sml.one_hot("origin")],
    "hour, one hot": [sml.hour_of_day(ZONE, encode="one_hot")],
    "hour, cycle": [sml.hour_of_day(ZONE, encode="cycle")],
    "weekday, one hot": [sml.weekday(ZONE, encode="one_hot")],
    "dep_hour, bucketed by 9, 12, 15, 18 and 20": [sml.bucketed("dep_hour", (9, 12, 15, 18, 20))],
    "late departures: today": [_late(day)],
    "late departures: yesterday": [_late(yesterday)],
    "late departures: tumbling hour": [_late(sml.tumbling("1h"))],
    "late departures: last whole hour": [_late(sml.tumbling("1h", previous=True))],
    "late departures: hopping, 3 h each hour": [_late(sml.hopping("3h", "1h"))],
    "late departures: this hour yesterday": [_late(sml.window("1h", ago="1d"))],
    "late departures: this hour last week": [_late(sml.window("1h", ago="7d"))],
    "late departures: 3 h": [_late(sml.window("3h"))],
    "late departures: last 20": [_late(sml.last_events(20))],
    "late departures: last 10 of the carrier": [_late(sml.last_events(10, by="carrier"))],
    "late departures: last 10 to dest": [_late(sml.last_events(10, by="dest"))],
    "late departures: last 10 of carrier to dest": [
        _late(sml.last_events(10, by=("carrier", "dest")))
    ],
    "late arrivals: 7 days of carrier to dest": [_late_arrivals("7d", "carrier", "dest")],
    "late arrivals: 30 days of carrier to dest": [_late_arrivals("30d", "carrier", "dest")],
    "late arrivals: 30 days of the carrier": [_late_arrivals("30d", "carrier")],
    "late arrivals: 30 days to dest": [_late_arrivals("30d", "dest")],
    "late arrivals: 7 days of the carrier": [_late_arrivals("7d", "carrier")],
    "late departures: 30 days of carrier to dest": [
        sml.window("30d", by=("carrier", "dest")).mean(late_departure, kind="departed", fill=0.2)
    ],
    "arr_delay: 30 days of carrier to dest": [
        sml.window("30d", by=("carrier", "dest")).mean(arr_delay, kind="arrived", fill=0.0)
    ],
    "late departures: hour to 7 days, ratio": [
        sml.ratio(
            sml.window("1h").mean(late_departure, kind="departed"),
            sml.window("7d").mean(late_departure, kind="departed"),
            fill=1.0,
        )
    ],
    "dep_delay: mean of an hour": [sml.window("1h").mean(dep_delay, **left)],
    "dep_delay: median of an hour": [sml.window("1h").median(dep_delay, **left)],
    "dep_delay: 0.9-quantile of an hour": [sml.window("1h").quantile(dep_delay, 0.9, **left)],
    "dep_delay: variance of 3 h": [sml.window("3h").variance(dep_delay, **left)],
    "dep_delay: slope of 3 h": [sml.window("3h").slope(dep_delay, **left)],
    "dep_delay: decayed, half in 30 min": [
        sml.window("3h").decayed_mean(dep_delay, half_life="30m", **left)
    ],
    "dep_delay: the last": [_last(sml.window("1h"))],
    "dep_delay: nearest to a day ago": [
        sml.lag(dep_delay, "1d", tolerance="1h", kind="departed", fill=0.0)
    ],
    "departures an hour, today": [day.rate(**left)],
    "departures in a row, session of 10 min": [sml.session("10m").count(kind="departed")],
    "backlog of today": [_backlog(day)],
    "backlog of 4 h, of the carrier": [_backlog(sml.window("4h", by="carrier"), "carrier")],
    "backlog of 4 h, to dest": [_backlog(sml.window("4h", by="dest"), "dest")],
    "seconds since the last departure": [
        sml.window("1h").time_since_last(kind="departed", fill=3600.0)
    ],
    "carriers that left, an hour": [sml.window("1h").distinct("carrier", kind="departed")],
    "arr_delay: decayed, half in 1 h": [
        sml.window("6h").decayed_mean(arr_delay, half_life="1h", **came)
    ],
    "all airports: late departures of the carrier, 3 h": [
        sml.window("3h", entity="carrier").mean(late_departure, **left)
    ],
    "all airports: arr_delay at dest, decayed, half in 1 h": [
        sml.window("6h", entity="dest").decayed_mean(arr_delay, half_life="1h", **came)
    ],
    "all airports: dep_delay to dest, 3 h": [
        sml.window("3h", entity="dest").mean(dep_delay, **left)
    ],
    "the plane: last dep_delay from this airport, 1 d": [_last(sml.window("1d", by="tailnum"))],
    "the plane: last dep_delay, 1 d": [_last(sml.window("1d", entity="tailnum"))],
    "the plane: last arr_delay, 1 d": [sml.window("1d", entity="tailnum").last(arr_delay, **came)],
    "the plane: late arrivals, last 5": [
        sml.last_events(5, entity="tailnum").mean(late_arrival, **came)
    ],
}
# Running means of the label by category: steps of the line, with the hashed feature that they read.
MEANS: dict[str, sml.Feature] = {
    "TargetMean by carrier": CARRIER,
    "TargetMean by dest": DEST,
    "TargetMean by carrier x dest": ROUTE,
    "TargetMean by origin x dest": ORIGIN_DEST,
    "TargetMean by origin x carrier": ORIGIN_CARRIER,
    "TargetMean by origin x hour": ORIGIN_HOUR,
    "TargetMean by carrier x hour": CARRIER_HOUR,
}
HASHED = (
    "hashed carrier x dest",
    "hashed carrier x hour",
    "hashed origin x carrier",
    "hashed origin x hour",
    "hashed origin x dest",
)
WINDOWS = (
    *EXTENDED,
    "late departures: last whole hour",
    "all airports: late departures of the carrier, 3 h",
    "all airports: dep_delay to dest, 3 h",
)
TOGETHER: dict[str, tuple[str, ...]] = {
    "the two of `extended`": EXTENDED,
    "five hashed crosses": HASHED,
    "the two, and five hashed crosses": (*EXTENDED, *HASHED),
    "five windows, and five hashed crosses": (*WINDOWS, *HASHED),
    "and the plane's last arr_delay": (*WINDOWS, *HASHED, "the plane: last arr_delay, 1 d"),
}


def declaration() -> sml.Pipeline:
    """The example with all features at once, and the plane's number among the fields."""
    several = [flights.features, *FEATURES.values(), [*MEANS.values()]]
    # By their columns: the hour in one form has the name of the hour in another.
    kept = {feature.columns(flights.schema): feature for each in several for feature in each}
    fields = {**flights.events.fields, "tailnum": sml.Optional[str]}
    return dataclasses.replace(
        flights,
        events=dataclasses.replace(flights.events, fields=fields),
        features=[*kept.values()],
    )


def planes() -> dict[str, str]:
    """Which plane flew, by the flight's id, as far as the record knows it."""
    archive = zipfile.ZipFile(flights_data.data_file("flights.csv.zip"))
    with archive, archive.open("flights.csv") as raw:
        rows = csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8", newline=""))
        return {
            f"{row['origin']}-{row['carrier']}{row['flight']}"
            f"-2013-{int(row['month']):02}-{int(row['day']):02}": row["tailnum"]
            for row in rows
            if row["tailnum"] not in flights_data.ABSENT
        }


@dataclass(frozen=True)
class Columns:
    """What was asked, what came of it, and the refresh instants, of one run of the feature set.

    Attributes:
        names: of dense columns.
        x: by prediction and dense column; NaN where there is none.
        groups: the names of hashed features.
        cells: by prediction and hashed feature: the number of the column, from 0 over all of
            them; -1 where there is none.
        signs: what stands there.
        ts: by prediction, UTC milliseconds.
        rows: by label, in the order in which they came: of which prediction it is.
        label: by label.
        instants: by refresh: after how many labels, and from which prediction on it serves.
    """

    names: tuple[str, ...]
    x: Any
    groups: tuple[str, ...]
    cells: Any
    signs: Any
    ts: Any
    rows: Any
    label: Any
    instants: Any


def _events(months: int) -> Iterator[tuple[str, Any]]:
    numbers = planes()
    for topic, body in flights_data.records(1, months):
        flight = body["event_id"].partition("/")[0]
        yield topic, {**body, "tailnum": numbers.get(flight)} if topic == "events" else body


def columns(months: int) -> Columns:
    """Run the real feature set over the months.

    Args:
        months: from January on.
    """
    pipeline = declaration()
    state = pipeline.feature_set.new_state()
    dense = [name for name in pipeline.feature_set.names if "#" not in name]
    groups = [name.partition("#")[0] for name in pipeline.feature_set.names if "#" in name]
    x, cells, signs, labels = [], [], [], []
    ts: list[int] = []
    known: dict[str, int] = {}
    rounds: list[int] = []
    row_numbers: dict[str, int] = {}
    for number, (topic, body) in enumerate(_events(months)):
        if topic == "labels":
            labels.append((body, row_numbers[body["event_id"]], number // ROUND_RECORDS))
            continue
        fields = {name: body.get(name) for name in pipeline.schema}
        event = Event(body["event_id"], body["ts"], body["origin"], fields)
        if pipeline.wants_prediction(event):
            row_numbers[event.event_id] = len(ts)
            features = state.features(event)
            x.append([features.get(name, np.nan) for name in dense])
            own = {name.partition("#")[0]: name for name in features if is_sparse(name)}
            cells.append([known.setdefault(own[g], len(known)) if g in own else -1 for g in groups])
            signs.append([features[own[g]] if g in own else 0.0 for g in groups])
            ts.append(event.ts)
            rounds.append(number // ROUND_RECORDS)
        state.insert(event)
        state.advance(event.ts)
    return Columns(
        tuple(dense),
        np.array(x),
        tuple(groups),
        np.array(cells),
        np.array(signs),
        np.array(ts),
        np.array([row for _, row, _ in labels]),
        np.array([body["label"] for body, _, _ in labels]),
        np.array(_instants(labels, rounds)),
    )


def _instants(labels: Sequence[tuple[Any, int, int]], rounds: Sequence[int]) -> list[list[int]]:
    """After how many labels lines are renewed, and from which prediction on that serves.

    Args:
        labels: with the prediction of each, and its round.
        rounds: by prediction.
    """
    clock, watermark = RefreshClock(DAY_MS), Watermark(flights.events.breadth)
    found = []
    for n, (body, _, number) in enumerate(labels, 1):
        watermark.advance(body["event_id"], body["ts"], sys.maxsize)
        if clock.strikes(n, watermark.ms):
            # A round's events are predicted before its labels are learned.
            found.append([n, int(np.searchsorted(rounds, number + 1))])
    return found


def means(data: Columns, group: int) -> tuple[Any, Any]:
    """The running mean of the label by category, as `TargetMean` has it.

    Args:
        data: of the months.
        group: the number of the hashed feature.

    Returns:
        By label, what the line learns with it; by prediction, what the snapshot that answers says.
    """
    width = int(data.cells.max()) + 1
    # What collides in a column with another sign is told apart.
    category = np.where(
        data.cells[:, group] < 0, -1, data.cells[:, group] * 2 + data.signs[:, group].clip(0)
    )
    category = category.astype(int)
    sums, counts, total = np.zeros(2 * width + 1), np.zeros(2 * width + 1), 0.0
    learned, served = np.full(len(data.label), np.nan), np.full(len(data.ts), np.nan)
    ends = {
        int(n): (int(start), end)
        for (n, start), end in zip(data.instants, _ends(data), strict=True)
    }
    for n, (row, label) in enumerate(zip(data.rows.tolist(), data.label.tolist(), strict=True)):
        cell = category[row]
        if n:
            learned[n] = (sums[cell] + SMOOTHING * total / n) / (counts[cell] + SMOOTHING)
        total += label
        if cell >= 0:
            sums[cell] += label
            counts[cell] += 1
        if n + 1 in ends:
            start, end = ends[n + 1]
            own = category[start:end]
            served[start:end] = (sums[own] + SMOOTHING * total / (n + 1)) / (
                counts[own] + SMOOTHING
            )
    return learned, served


def _ends(data: Columns) -> list[int]:
    return [*data.instants[1:, 1].tolist(), len(data.ts)]


class MixedLines(Lines):
    """Many lines at once that differ in the columns that they see, hashed ones among them.

    Args:
        dense: by line and dense column, 1 where the line sees it.
        hashed: by line and hashed feature, likewise.
        width: how many columns hashed features have together.
    """

    def __init__(self, dense: Any, hashed: Any, width: int) -> None:
        super().__init__(len(dense), len(dense[0]), dense)
        self.hashed, self._all = hashed, np.ones(len(dense))
        # The last one is that of what has no column.
        shape = (len(dense), width + 1)
        self.hashed_weight, self.hashed_g2 = np.zeros(shape), np.zeros(shape)
        self._cells: Any = None
        self._inputs: Any = None

    def learn_mixed(self, x: Any, cells: Any, signs: Any, label: bool) -> None:
        """One example, for all lines.

        Args:
            x: dense columns.
            cells: by hashed feature, its column.
            signs: what stands there.
            label: the truth.
        """
        self._cells, self._inputs = cells, self.hashed * signs
        self.learn(x, label, self._all)

    def _raw(self, inputs: Any) -> Any:
        weights = self.hashed_weight[:, self._cells]
        return super()._raw(inputs) + np.einsum("ij,ij->i", weights, self._inputs)

    def _descend(self, inputs: Any, slope: Any) -> None:
        super()._descend(inputs, slope)
        gradient = self._inputs * slope[:, None]
        g2 = self.hashed_g2[:, self._cells] + gradient * gradient
        self.hashed_g2[:, self._cells] = g2
        self.hashed_weight[:, self._cells] -= 0.02 * gradient / np.sqrt(g2 + 1e-8)

    def answers(self, x: Any, cells: Any, signs: Any) -> Any:
        """What the lines as they are say to rows: by row and line.

        Args:
            x: dense columns, by row.
            cells: by row and hashed feature, its column.
            signs: what stands there.
        """
        present = (~np.isnan(x)).astype(float)
        weight = self.weight * self._scale()
        raw = np.nan_to_num(x) @ weight.T - present @ (weight * self.mean).T + self.intercept
        for group in range(cells.shape[1]):
            own = self.hashed_weight[:, cells[:, group]].T
            raw += own * signs[:, group, None] * self.hashed[:, group]
        return 1 / (1 + np.exp(-raw))


@dataclass(frozen=True)
class Line:
    """What a line sees beside the example's features.

    Attributes:
        features: the names of what else it sees.
        means: the names of hashed features of which it has the running mean alone.
    """

    features: frozenset[str] = frozenset()
    means: frozenset[str] = frozenset()


def _columns(features: Iterable[sml.Feature]) -> frozenset[str]:
    schema = flights.schema
    return frozenset(name for feature in features for name in feature.columns(schema))


def lines() -> dict[str, Line]:
    """By what is printed: the example's features, with each feature alone, and with several."""
    found = {"the example's features": Line()}
    for name, features in FEATURES.items():
        found[name] = Line(_columns(features))
    for name, mean in MEANS.items():
        found[name] = Line(means=frozenset({mean.name}))
    for name, parts in TOGETHER.items():
        several = [found[part] for part in parts]
        found[name] = Line(
            frozenset().union(*(each.features for each in several)),
            frozenset().union(*(each.means for each in several)),
        )
    return found


def losses(data: Columns, chosen: Sequence[Line]) -> Any:
    """The log losses of what each line would have served, by prediction; NaN without a label.

    Args:
        data: of the months.
        chosen: the lines.
    """
    base = _columns(flights.features)
    wanted = sorted({mean for line in chosen for mean in line.means})
    running = [means(data, data.groups.index(mean)) for mean in wanted]
    names = [*data.names, *(f"target_mean({mean})" for mean in wanted)]
    seen = [
        base | line.features | {f"target_mean({mean})" for mean in line.means} for line in chosen
    ]
    dense = np.array([[float(name in own) for name in names] for own in seen])
    hashed = np.array(
        [[float(any(n.startswith(f"{g}#") for n in own)) for g in data.groups] for own in seen]
    )
    learned = np.column_stack([data.x[data.rows], *(each for each, _ in running)])
    served = np.column_stack([data.x, *(each for _, each in running)])
    model = MixedLines(dense, hashed, int(data.cells.max()) + 1)
    truth = np.full(len(data.ts), np.nan)
    truth[data.rows] = data.label
    answers = np.full((len(data.ts), len(chosen)), 0.5)
    ends = dict(zip(data.instants[:, 0].tolist(), _ends(data), strict=True))
    starts = dict(data.instants.tolist())
    for n, (row, label) in enumerate(zip(data.rows.tolist(), data.label.tolist(), strict=True), 1):
        model.learn_mixed(learned[n - 1], data.cells[row], data.signs[row], label)
        if n in ends:
            rows = slice(starts[n], ends[n])
            answers[rows] = model.answers(served[rows], data.cells[rows], data.signs[rows])
    answers = answers.clip(CERTAIN, 1 - CERTAIN)
    loss = -np.log(np.where(truth[:, None] == 1, answers, 1 - answers))
    loss[np.isnan(truth)] = np.nan
    return loss


def table(data: Columns, chosen: dict[str, Line]) -> Iterator[str]:
    """A row for each line, the best first, with what it gains beside the first.

    Args:
        data: of the months.
        chosen: the lines by name.
    """
    loss = losses(data, [*chosen.values()])
    has_label = ~np.isnan(loss[:, 0])
    loss, ts = loss[has_label], data.ts[has_label]
    total = loss.mean(axis=0)
    by_day = _by_period(loss, ts // DAY_MS)
    months = (ts.astype("datetime64[ms]") - np.timedelta64(5, "h")).astype("datetime64[M]")
    by_month = _by_period(loss, months.astype(int))
    names = [*chosen]
    for n in [0, *(int(each) for each in np.argsort(total) if each)]:
        gains = by_day[:, 0] - by_day[:, n]
        error = gains.std(ddof=1) / math.sqrt(len(gains))
        z = gains.mean() / error if error else 0.0
        won = int((by_month[:, n] < by_month[:, 0]).sum())
        gain = total[0] - total[n]
        yield f"| {names[n]} | {total[n]:.4f} | {gain:+.4f} | {z:+.1f} | {won} of {len(by_month)} |"


def _by_period(loss: Any, period: Any) -> Any:
    _, number = np.unique(period, return_inverse=True)
    counts = np.bincount(number)[:, None]
    return np.array([np.bincount(number, column) for column in loss.T]).T / counts


def replayed(months: int) -> dict[str, float]:
    """The log losses of what the system serves on a log, by event, with the example's features.

    Args:
        months: from January on.
    """
    pipeline = dataclasses.replace(
        flights,
        champion="adagrad",
        models={"adagrad": flights.models["adagrad"]},
    )
    found = {}
    with tempfile.TemporaryDirectory() as folder, SqliteLog.create(Path(folder, "log")) as log:
        records = flights_data.records(1, months)
        replay(log, pipeline, KEY, (output_of(pipeline, *each) for each in records))
        for example in examples(log):
            prediction = example.prediction
            given = cast("float | None", prediction.prediction)
            share = min(max(0.5 if given is None else given, CERTAIN), 1 - CERTAIN)
            found[prediction.event_id] = -math.log(share if example.label else 1 - share)
    return found


def check(data: Columns, months: int) -> float:
    """By how much losses differ at most from those on a log.

    Args:
        data: of the months.
        months: from January on.
    """
    ours = losses(data, [Line()])[:, 0]
    asked = (
        body["event_id"]
        for topic, body in flights_data.records(1, months)
        if topic == "events" and body["kind"] == "scheduled"
    )
    numbers = {event_id: n for n, event_id in enumerate(asked)}
    theirs = replayed(months)
    assert len(theirs) == int((~np.isnan(ours)).sum())
    return max(abs(float(ours[numbers[event_id]]) - loss) for event_id, loss in theirs.items())


def main() -> None:
    """Print a row for each line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--months", type=int, default=12)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    data = columns(options.months)
    for row in table(data, lines()):
        print(row)
    if options.check:
        print(f"from a replay on a log losses differ by {check(data, options.months):.2g} at most")


if __name__ == "__main__":
    main()
