"""Lines of several libraries in one pipeline, on real flights: what they are worth, and cost.

    PYTHONPATH=.venv/extras python -m benchmarks.learners [--months 3] [--kills 10]

River, scikit-learn, LightGBM that is retrained daily, and a class of a user's own from a package
that is installed for this run, beside one another. Printed are the table of `docs/learners.md`, and
whether each line that is promoted by command serves, whether every answer of a sample is made
again, and whether a worker that is killed again and again decides the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import stream_ml as sml
from stream_ml.examples.flights import flights
from stream_ml.learners.lightgbm import LightGBM
from stream_ml.learners.sklearn import ScikitLearn
from stream_ml.records import line_of
from stream_ml.shell import flights_data
from stream_ml.shell.embedded.replay import output_of
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.reading import examples
from stream_ml.shell.processes.stopwatch import ProcessStopwatch
from stream_ml.shell.report.answer_table import AnswerTable
from stream_ml.shell.views.costs import read_costs
from stream_ml.shell.views.reproduce import reproduce, sample
from stream_ml.stages.retraining import TrainingsInPlace
from stream_ml.testing import CRASH, Driver

if TYPE_CHECKING:
    from stream_ml.models.retrained import TrainingJob
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Output
    from stream_ml.shell.log.port import Log

__all__ = ["main"]

KEY = b"testing"
SAMPLE = 1_000
# The events of April after each promotion.
STRETCH = 2_000
OWN = Path(__file__).parent / "own_package"


class _TimedTrainings(TrainingsInPlace):
    """Trains in place, and counts the processor's seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.rows: list[int] = []

    def begin(self, job: TrainingJob) -> None:
        """Note the size of the window."""
        super().begin(job)
        self.rows.append(len(job.rows) // 8)

    def end(self, line: str) -> bytes:
        """Train."""
        started_s = time.process_time()
        model = super().end(line)
        self.seconds.append(time.process_time() - started_s)
        return model


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--months", type=int, default=3)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--kill-events", type=int, default=30_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pipeline = _declared(_installed(Path(folder)))
        _run(pipeline, options.months)
        _kill(pipeline, options.kills, options.kill_events)


def _installed(folder: Path) -> Any:
    """The user's package, as pip installs it from its folder."""
    words = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *words, str(OWN)], check=True)  # noqa: S603
    sys.path.append(str(folder))
    return importlib.import_module("own_lines")


def _declared(own_lines: Any) -> Pipeline:
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415 - an extra
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    rate = {"learning_rate": "constant", "eta0": 0.003}
    linear = SGDClassifier(loss="log_loss", random_state=1, **rate)
    boosted = LightGBM(100, num_leaves=15, learning_rate=0.05, min_data_in_leaf=100)
    models = {
        "river": flights.models["adagrad"],
        "river tree": flights.models["tree"],
        "scikit-learn": ScikitLearn(make_pipeline(StandardScaler(), linear), batch=50),
        "LightGBM": sml.Retrained(boosted, "30d", every="1d"),
        "own": own_lines.OwnLogistic(0.02),
    }
    names = {name: name.replace(" ", "_").replace("-", "_").lower() for name in models}
    return dataclasses.replace(
        flights,
        champion="river",
        models={names[name]: model for name, model in models.items()},
        # Who serves is decided here by command.
        promotion=dataclasses.replace(flights.promotion, mode="manual", slots=len(models)),
        keep=1_000,
    )


def _run(pipeline: Pipeline, months: int) -> None:
    """Replay the months, promote each line, and print what came of it."""
    trainings = _TimedTrainings()
    with Driver(pipeline, key=KEY) as driver:
        stopwatch = ProcessStopwatch(budget_s=math.inf, clock=time.process_time)
        driver._runner = Runner(  # noqa: SLF001 - with what a driver does not measure
            driver.log, pipeline, KEY, trainings=trainings, stopwatch=stopwatch
        )
        _publish(driver, pipeline, 1, months)
        driver.run()
        driver.runner.commit(checkpoint=True)
        _print_table(driver.log, pipeline, trainings)
        following = [output_of(pipeline, *r) for r in flights_data.records(months + 1, months + 1)]
        for number, line in enumerate(pipeline.models):
            _promote(driver, line, following[number * STRETCH : (number + 1) * STRETCH])
        done = reproduce(driver.log, pipeline, KEY, sample(driver.log, SAMPLE, seed=1))
    print(f"\n{len(done.answers):,} answers of {SAMPLE} predictions made again: worst difference")
    for slot in sorted({answer.slot for answer in done.answers}):
        answers = [answer for answer in done.answers if answer.slot == slot]
        print(f"    {slot}: {len(answers)}, {max(answer.difference for answer in answers):g}")
    print(f"    dropped {sum(done.dropped.values())}, refused {sum(done.refused.values())}")


def _publish(driver: Driver, pipeline: Pipeline, first: int, last: int) -> None:
    records = flights_data.records(first, last)
    driver.log.append([output_of(pipeline, *record) for record in records])


def _print_table(log: Log, pipeline: Pipeline, trainings: _TimedTrainings) -> None:
    breadth = pipeline.events.breadth
    table = AnswerTable("binary", pipeline.horizon_ms, breadth, ())
    for example in examples(log):
        table.add(example, {})
    lines = list(pipeline.models)
    group = table.common(range(len(table.times)), lines)
    costs = read_costs(log)
    print(f"{len(group):,} of {len(table.times):,} examples answered by all\n")
    print("| line | examples | Brier | log loss | µs an answer | µs an example | s a snapshot |")
    print("|---|---|---|---|---|---|---|")
    for line in lines:
        pairs = table.pairs(line, group)
        brier = sum((answer - label) ** 2 for label, answer in pairs) / len(pairs)
        log_loss = -sum(math.log(max(a if label else 1 - a, 1e-15)) for label, a in pairs)
        cost = costs[line]
        print(
            f"| `{line}` | {len(pairs):,} | {brier:.4f} | {log_loss / len(pairs):.4f} | "
            f"{cost.answer_us:.0f} | {cost.example_us:.0f} | {cost.snapshot_s:.4f} |"
        )
    width = 2 + len(pipeline.feature_set.names)
    print(
        f"\n{len(trainings.seconds)} trainings, {sum(trainings.seconds):.0f} s of CPU, the last "
        f"{trainings.seconds[-1]:.2f} s on {trainings.rows[-1] // width:,} examples"
    )


def _promote(driver: Driver, line: str, following: list[Output]) -> None:
    """Promote a line by command, and let it serve for a while."""
    champion = line_of(driver.read("registry")[-1]["serving"]["champion"]["model"])
    if champion != line:
        driver.command("promote", model=line, expect=champion)
        driver.run()
    count = len(driver.records("predictions"))
    driver.log.append(following)
    driver.run()
    served = [line_of(p["model"]) for p in driver.read("predictions")[count:]]
    print(f"promoted {line}: {served.count(line)} of {len(served)} predictions are its own")


def _kill(pipeline: Pipeline, kills: int, count: int) -> None:
    """The same, whether the worker dies or not."""
    found = []
    for times in (0, kills):
        with Driver(pipeline, key=KEY) as driver:
            records = list(flights_data.records(1, 2))[:count]
            driver.publish("labels", [members for topic, members in records if topic == "labels"])
            events: list[Any] = [members for topic, members in records if topic == "events"]
            step = len(events) // (times + 1)
            for number in range(times):
                events.insert((number + 1) * step + number, CRASH)
            driver.feed(events)
            digest = hashlib.sha256()
            for topic in ("predictions", "registry", "evaluations"):
                for record in driver.records(topic):
                    digest.update(record.value or b"")
            digests = [model and model["digest"] for model in driver.read("models")]
            found.append((digest.hexdigest(), digests))
            print(f"{times} kills, {len(events)} events: {digest.hexdigest()[:16]}")
    assert found[0] == found[1], "a death has changed what came out"


if __name__ == "__main__":
    main()
