"""Trainings in processes of their own: the same models, and bounds that hold whatever they do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import stream_ml as sml
from stream_ml.errors import SnapshotRefused
from stream_ml.models.retrained import TrainingJob, encode_row
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.processes.trainings import ProcessTrainings
from stream_ml.stages.retraining import TrainingsInPlace
from stream_ml.testing import _output
from tests.simulation import world
from tests.trainers import Bag, Nasty

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.stages.retraining import Trainings

TARGET = sml.Target.binary()
KEY = b"own." * 8


def job(trainer: Any) -> TrainingJob:
    """A training on a few examples."""
    learner = sml.Retrained(trainer, 100)
    learner.prepare(TARGET, ("x", "y"))
    rows = [encode_row(n, n % 3 == 0, {"x": float(n)}, TARGET, ("x", "y")) for n in range(50)]
    return TrainingJob("line", learner, 50, np.array(rows).tobytes())


def outcome(trainer: Any, trainings: Trainings) -> str:
    """The model, or why there is none."""
    trainings.begin(job(trainer))
    try:
        return trainings.end("line").decode()
    except SnapshotRefused as refused:
        return str(refused)


def test_a_process_makes_the_same_model() -> None:
    """What is trained elsewhere is what would have been trained here, whatever it prints."""
    expected = outcome(Bag(), TrainingsInPlace())

    assert expected == outcome(Bag(), ProcessTrainings())
    assert expected == outcome(Nasty("print"), ProcessTrainings())


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        ("hang", "it took longer than 2 s (STREAM_ML_TRAINING_SECONDS)"),
        ("hoard", "it takes more than 4096 MB of memory (STREAM_ML_TRAINING_MEMORY_MB)"),
        ("exit", "its process ended with code 3; it may have 4096 MB (STREAM_ML_TRAINING_MEMORY"),
        ("raise", "ArithmeticError('no')"),
        ("quit", "SystemExit(4)"),
    ],
)
def test_whatever_a_training_does_is_a_reason(deed: str, reason: str) -> None:
    """It takes too long or too much, dies or raises: that is said, and nothing else happens."""
    said = outcome(Nasty(deed), ProcessTrainings(2.0 if deed == "hang" else 60.0))

    assert said.startswith("training failed: ")
    assert reason in said


def test_what_no_process_can_be_given_is_a_reason() -> None:
    """A trainer that cannot be sent elsewhere fails with the part that stands in the way."""
    bag = Bag()
    bag.deed = lambda: None  # type: ignore[attr-defined]  # planted
    said = outcome(bag, ProcessTrainings())

    assert "training failed: it cannot be handed to another process: " in said
    assert "lambda" in said


@pytest.mark.parametrize("part", ["tempfile.TemporaryFile", "subprocess.Popen"])
def test_a_process_that_cannot_begin_is_a_reason(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the machine has no room or no process left the line is told of it, and no more."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"stream_ml.shell.processes.trainings.{part}", refuse)
    said = outcome(Bag(), ProcessTrainings())

    assert "training failed: it cannot be handed to another process: " in said
    assert "No space left on device" in said


def test_a_training_ends_with_its_worker() -> None:
    """A worker that is killed leaves no process behind that trains on."""
    code = (
        f"import os, sys; sys.path[:0] = {sys.path}\n"
        "from tests.shell.test_trainings import Nasty, ProcessTrainings, job\n"
        "trainings = ProcessTrainings()\n"
        "trainings.begin(job(Nasty('hang')))\n"
        "print(trainings._running['line'].process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter and words
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    pid = int(done.stdout)
    deadline_s = time.monotonic() + 30
    while _is_alive(pid) and time.monotonic() < deadline_s:
        os.sched_yield()

    assert not _is_alive(pid)


def _is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
        return stat.rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- the whole system -------------------------------------------------------------------------


@contextmanager
def worked(path: Path, bag: sml.Trainer, trainings: Trainings | None) -> Iterator[Any]:
    """A log on which a retrained line has run."""
    declared = replace(world.pipeline, models={**world.pipeline.models, "bag": line(bag)})
    events, labels = world.stream(3, 200)
    with SqliteLog.create(path, now_ms=lambda: 2**42, identity="a") as log:
        outputs = [*_outputs("labels", labels), *_outputs("events", events)]
        log.append(outputs)
        with Runner(log, declared, KEY, trainings=trainings) as runner:
            runner.run()
            yield log, runner


def line(bag: sml.Trainer) -> sml.Retrained:
    """A line of it."""
    return sml.Retrained(bag, 50)


def _outputs(topic: str, values: list[Any]) -> list[Any]:
    return [_output(topic, value, "shop" if topic == "events" else "event_id") for value in values]


def test_a_worker_trains_elsewhere_and_decides_the_same(tmp_path: Path) -> None:
    """Predictions, models and decisions are those of a replay that trains in place."""
    found = []
    with closing(ProcessTrainings()) as processes:
        for name, trainings in (("a", processes), ("b", None)):
            with worked(tmp_path / name, Bag(), trainings) as (log, _):
                found.append(
                    {
                        topic: [record.value for record in log.read(topic, 0, 0, 10_000)]
                        for topic in ("predictions", "registry")
                    }
                )

    assert found[0]["predictions"]
    assert found[1] == found[0]


def test_a_training_that_dies_quarantines_its_line_alone(tmp_path: Path) -> None:
    """The worker goes on, the others are renewed, and the reason is told."""
    with worked(tmp_path / "a", Nasty("exit"), ProcessTrainings()) as (log, runner):
        reasons = runner.learn.quarantine_reasons
        decisions = log.read("registry", 0, 0, 10_000)

    assert ["bag"] == list(reasons)
    assert "training failed: its process ended with code 3" in reasons["bag"]
    assert b"bayes@80" in decisions[-1].value
