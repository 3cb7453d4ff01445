"""Features changed in flight on real flights, against a declaration that had them from the start.

    $ python -m benchmarks.apply --months 2

Half of the flights are worked on under a declaration with two features less, one other window, one
line less and another recipe of a challenger. Then the bundled declaration is applied, and the rest
is worked on. All later feature vectors and all snapshots are compared with those of a log on which
the bundled declaration ran from the start.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from river import tree

import stream_ml as sml
from stream_ml.examples.flights import flights, late_arrival
from stream_ml.models.envelope import decode
from stream_ml.shell import flights_data
from stream_ml.shell.embedded.replay import output_of
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.handover import Preparation
from stream_ml.shell.log.reading import decisions, read_all
from stream_ml.shell.log.sqlite import SqliteLog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Output
    from stream_ml.shell.log.port import Log

KEY = b"the key of a benchmark".ljust(32, b".")
NEW_FEATURES = ("backlog 3h", "mean(clip(dep_delay, -15, 180)) 3h by dest kind=departed")
CHANGED_WINDOW = "mean(late_arrival) 3h by carrier kind=arrived"


def former() -> tuple[Pipeline, Pipeline]:
    """The declaration of before, and the bundled one with what goes on for its sake."""
    old_window = sml.window("5h", by="carrier").mean(late_arrival, kind="arrived", fill=0.0)
    kept = [each for each in flights.features if each.name not in {*NEW_FEATURES, CHANGED_WINDOW}]
    models = {
        "sgd": flights.models["sgd"],
        "tree": tree.HoeffdingTreeClassifier(max_depth=2),
    }
    before = replace(flights, features=[*kept, old_window], models=models)
    return before, replace(flights, retired=[old_window])


def work(log: SqliteLog, pipeline: Pipeline, records: Sequence[Output]) -> float:
    """Publish and work on records; seconds of CPU."""
    log.append(records)
    started_s = time.process_time()
    with Runner(log, pipeline, KEY) as runner:
        runner.run()
        while runner.catch_up():
            pass
    return time.process_time() - started_s


def vectors(log: Log) -> dict[str, Any]:
    """The features of each prediction, by event, as they were logged."""
    found: dict[str, Any] = {}
    for record in read_all(log, "predictions"):
        body = orjson.loads(record.value or b"{}")
        assert body["event_id"] not in found, "a prediction is doubled"
        found[body["event_id"]] = body["features"]
    return found


def digests(log: Log, line: str) -> dict[int, str]:
    """The digests of what a line has published, by version."""
    found = [decode(record.value) for record in read_all(log, "models") if record.value]
    return {each.version: each.digest for each in found if each.name == line}


def main() -> None:
    """Run it, and print what was equal and what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--months", type=int, default=2)
    months = parser.parse_args().months
    before, after = former()
    records = [output_of(flights, *each) for each in flights_data.records(1, months)]
    half = len(records) // 2
    with (
        tempfile.TemporaryDirectory() as folder,
        SqliteLog.create(Path(folder) / "applied.sqlite") as log,
        SqliteLog.create(Path(folder) / "always.sqlite") as always,
    ):
        work(log, before, records[:half])
        prediction_count = log.end_offset("predictions", 0)
        started_s = time.process_time()
        preparation = Preparation.beside(log, after, KEY)
        events = preparation.advance()
        prepared_s = time.process_time() - started_s
        started_s = time.perf_counter()
        with Runner(log, after, KEY, apply="a benchmark", preparation=preparation):
            gap_s = time.perf_counter() - started_s
        rest_s = work(log, after, records[half:])
        always_s = work(always, flights, records)
        print(f"{len(records):,} records, {events:,} events before the change")
        print(
            f"prepared beside the worker: {prepared_s:.1f} s of CPU, "
            f"{prepared_s / events * 1e6:.1f} µs an event; its place taken for {gap_s:.2f} s"
        )
        print(
            f"the second half with all that is caught up with: {rest_s:.1f} s of CPU; all of it "
            f"from the start: {always_s:.1f} s"
        )
        actual, expected = vectors(log), vectors(always)
        later = [*actual][prediction_count:]
        names = flights.feature_set.names
        equal = sum(
            expected[each] == {n: actual[each][n] for n in names if n in actual[each]}
            for each in later
        )
        print(
            f"predictions: {len(actual):,} of {len(expected):,}; later vectors equal: "
            f"{equal:,} of {len(later):,}"
        )
        for line in flights.models:
            late, whole = digests(log, f"{line}.2"), digests(always, line)
            same = sum(whole.get(version) == digest for version, digest in late.items())
            print(f"{line}.2: {same} of {len(late)} snapshots equal by digest, from {min(late)} on")
        for decision in decisions(log, KEY):
            if decision.kind in {"applied", "replaced"}:
                print(
                    f"{decision.kind}: {decision.serving.champion.model} serves; {decision.reason}"
                )


if __name__ == "__main__":
    main()
