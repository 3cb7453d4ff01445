"""Clicks that come late: what is answered where silence is a no, with corrections and without.

    python -m benchmarks.delayed --events 100000 --rate 0.02

One event a second; an event is clicked with a chance whose mean is `--rate`, twice as likely where
`x` is above its mean; the delay is exponential, with a mean of one window. The whole embedded
system works through it in the order of time, with four lines, of which `tree` answers by the naive
Bayes of its leaves, as river's default is where that was right more often, and `leaves` by their
counts. One row a line and way:

- `known`: the last word comes first, a window after the event; there is no silence, and nothing to
  correct. It is what each learner makes of the truth.
- `silence`: no click within the window is a no, and the horizon ends with it.
- `learned`: a later click corrects it and is learned, and so is all silence.
- `corrected`: as it is declared: as much silence is passed over as was found to be fake.

The answers are each line's own, of the last quarter of the events; `truth` is the share of events
that were clicked among those, and `scored` that of the labels as they stand at the end.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import defaultdict
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Any

from river import linear_model, naive_bayes, optim, preprocessing, tree

import stream_ml as sml
from stream_ml.codec import decode_prediction
from stream_ml.records import line_of
from stream_ml.shell.log.reading import examples
from stream_ml.stages.lessons import Lessons
from stream_ml.testing import Driver

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["main"]

START_MS = 1_700_000_000_000
WINDOW_MS = 3_600_000
BATCH = 2_000


WAYS = ("known", "silence", "learned", "corrected")


def declared(way: str) -> sml.Pipeline:
    """Four lines that learn of silence, or of the truth."""
    label = sml.Label(bool, window=WINDOW_MS, absent=False)
    if way == "known":
        label = sml.Label(bool, horizon=2 * WINDOW_MS)
    elif way == "silence":
        label = sml.Label(bool, horizon=WINDOW_MS, window=WINDOW_MS, absent=False)
    return sml.Pipeline(
        "delayed",
        events=sml.Events(key="user", fields={"x": float}),
        features=[sml.field("x")],
        label=label,
        models={
            "bayes": naive_bayes.GaussianNB(),
            "logistic": preprocessing.StandardScaler()
            | linear_model.LogisticRegression(optim.SGD(0.01)),
            "tree": tree.HoeffdingTreeClassifier(grace_period=500),
            "leaves": tree.HoeffdingTreeClassifier(grace_period=500, leaf_prediction="mc"),
        },
        champion="bayes",
        promotion=sml.Promotion(mode="manual", refresh="6h"),
        monitors=None,
    )


Record = tuple[int, str, dict[str, Any]]


def world(events: int, rate: float, seed: int) -> list[Record]:
    """Events and clicks in the order of time."""
    rand, records = random.Random(seed), list[Record]()
    for n in range(events):
        ts, x = START_MS + 1_000 * n, rand.gauss(0, 1)
        event = {"event_id": f"e{n}", "ts": ts, "user": f"u{n % 500}", "x": x}
        records.append((ts, "events", event))
        if rand.random() < rate * (4 / 3 if x > 0 else 2 / 3):
            at = ts + round(rand.expovariate(1 / WINDOW_MS))
            label = {"event_id": event["event_id"], "ts": at, "label": True}
            records.append((at, "labels", label))
    end = START_MS + 1_000 * events + 8 * WINDOW_MS
    for n in range(5):
        label = {"event_id": f"nothing-{n}", "ts": end + n, "label": True}
        records.append((end + n, "labels", label))
    return sorted(records, key=lambda record: record[0])


def known(records: Sequence[Record]) -> list[Record]:
    """The same events, each with its last word a window later."""
    clicked = {each["event_id"] for _, of, each in records if of == "labels"}
    truth = []
    for ts, _, event in (record for record in records if record[1] == "events"):
        members = {"event_id": event["event_id"], "ts": ts + WINDOW_MS}
        label = {**members, "label": event["event_id"] in clicked}
        truth.append((ts + WINDOW_MS, "labels", label))
    events = [record for record in records if record[1] == "events"]
    return sorted([*events, *truth], key=lambda record: record[0])


def work(pipeline: sml.Pipeline, records: Sequence[Record]) -> Driver:
    """The whole system, a while at a time."""
    driver = Driver(pipeline)
    for start, end in pairwise([*range(0, len(records), BATCH), len(records)]):
        for topic in ("events", "labels"):
            driver.publish(topic, [each for _, of, each in records[start:end] if of == topic])
        driver.run()
    driver.runner.commit(checkpoint=True)
    return driver


def answers(driver: Driver, events: int) -> Iterator[tuple[str, float]]:
    """By line, the mean of its own answers to the last quarter of the events."""
    said: dict[str, list[float]] = defaultdict(list)
    champion = line_of(decode_prediction(driver.records("predictions")[-1].value).model)
    since = START_MS + 1_000 * (events - events // 4)
    for example in examples(driver.log):
        prediction = example.prediction
        if prediction.ts < since or example.correction is not None:
            continue
        if isinstance(prediction.own_answer, float):
            said[champion].append(prediction.own_answer)
        for slot, shadow in prediction.shadows.items():
            if slot == line_of(shadow.model) and isinstance(shadow.prediction, float):
                said[slot].append(shadow.prediction)
    return ((line, fmean(each)) for line, each in sorted(said.items()))


def main(arguments: Sequence[str]) -> int:
    """Run each way and print a row for each line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    given = parser.parse_args(arguments)
    records = world(given.events, given.rate, given.seed)
    since = START_MS + 1_000 * (given.events - given.events // 4)
    late = {each["event_id"] for ts, of, each in records if of == "events" and ts >= since}
    clicked = {each["event_id"] for _, of, each in records if of == "labels"}
    print(f"{'way':<12}{'line':<12}{'answered':>9}{'truth':>9}{'scored':>9}")
    takes = Lessons.takes
    for way in given.ways:
        pipeline = declared(way)
        Lessons.takes = (lambda *_: True) if way == "learned" else takes  # type: ignore[method-assign]
        with work(pipeline, known(records) if way == "known" else records) as driver:
            stand = [float(each.label) for each in examples(driver.log, pipeline.label)]
            for line, answer in answers(driver, given.events):
                truth = len(late & clicked) / len(late)
                row = f"{way:<12}{line:<12}{answer:>9.4f}{truth:>9.4f}{fmean(stand):>9.4f}"
                print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
