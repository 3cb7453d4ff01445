"""What categories without a list are worth to the flights: the served log loss, each feature alone.

`python -m benchmarks.flight_categories [--months 1]`: the flights are replayed with the example's
line `adagrad` alone, which serves, and once more with one feature besides: hashed columns, or a
running mean of the label by category. Printed is the log loss of what was served, and how far it
lies from that without, in standard errors over days (a day's flights share their weather).
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import tempfile
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from river import compose, linear_model, optim, preprocessing

import stream_ml as sml
from stream_ml.examples.flights import flights
from stream_ml.shell import flights_data
from stream_ml.shell.embedded.replay import output_of, replay
from stream_ml.shell.log.reading import examples
from stream_ml.shell.log.sqlite import SqliteLog

if TYPE_CHECKING:
    from collections.abc import Sequence

KEY = b"benchmark".ljust(32, b".")
DAY_MS = 86_400_000
CERTAIN = 1e-9

ROUTE = sml.cross("carrier", "dest", width=1024).named("route")
HOUR = sml.cross("origin", sml.hour_of_day("America/New_York"), width=256).named("hour")
VARIANTS: dict[str, tuple[list[sml.Feature], Sequence[str]]] = {
    "as it is": ([], ()),
    "hashed carrier, 64": ([sml.hashed("carrier", 64)], ()),
    "hashed dest, 256": ([sml.hashed("dest", 256)], ()),
    "cross of origin and hour, 256": ([HOUR], ()),
    "mean by carrier and dest": ([ROUTE], ["route"]),
    "mean by origin and hour": ([HOUR], ["hour"]),
}


def line(means: Sequence[str]) -> Any:
    """The example's `adagrad`, behind means of the label, with columns that are not scaled."""
    model = sml.DenseScaler() | linear_model.LogisticRegression(
        optim.AdaGrad(0.02), intercept_lr=0.003
    )
    steps: compose.Pipeline = model
    for feature in means:
        steps = sml.TargetMean(feature, smoothing=50.0) | steps
    return steps


def losses(
    features: list[sml.Feature], means: Sequence[str], months: int
) -> dict[int, list[float]]:
    """The log losses of what was served, by day."""
    model = (
        line(means)
        if features
        else (
            preprocessing.StandardScaler()
            | linear_model.LogisticRegression(optim.AdaGrad(0.02), intercept_lr=0.003)
        )
    )
    pipeline = dataclasses.replace(
        flights,
        features=[*flights.features, *features],
        champion="adagrad",
        models={"adagrad": model},
    )
    found: dict[int, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, SqliteLog.create(Path(folder, "log")) as log:
        records = flights_data.records(1, months)
        replay(log, pipeline, KEY, (output_of(pipeline, *record) for record in records))
        for example in examples(log):
            given = example.prediction.prediction
            share = 0.5 if given is None else min(max(float(given), CERTAIN), 1 - CERTAIN)  # type: ignore[arg-type]
            loss = -math.log(share if example.label else 1 - share)
            found.setdefault(example.prediction.ts // DAY_MS, []).append(loss)
    return found


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--months", type=int, default=1)
    options = parser.parse_args()
    base: dict[int, list[float]] = {}
    for name, (features, means) in VARIANTS.items():
        start = time.process_time()
        found = losses(features, means, options.months)
        base = base or found
        total = fmean(loss for day in found.values() for loss in day)
        gains = [fmean(base[day]) - fmean(found[day]) for day in sorted(base)]
        error = stdev(gains) / math.sqrt(len(gains))
        z = fmean(gains) / error if error else 0.0
        seconds = time.process_time() - start
        print(f"{name} | {total:.4f} | {z:+.1f} | {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
