"""Where each line is a task of its own it learns, and is judged, as where one task has all."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from river import tree

from stream_ml.errors import DeclarationError, UsageError
from stream_ml.models.envelope import decode
from stream_ml.testing import CRASH, Driver
from tests.shop import declare, stream

if TYPE_CHECKING:
    from stream_ml.pipeline import Pipeline

whole = declare(
    models={
        **declare().models,
        "late": tree.HoeffdingTreeClassifier(grace_period=20, max_depth=3),
    }
)
rounds = replace(whole, promotion=replace(whole.promotion, refresh="1m", block="2m", maturity="1m"))
TOPICS = ("predictions", "examples", "registry", "evaluations", "answers", "alerts", "dead-letters")


def by_line(pipeline: Pipeline) -> Pipeline:
    """The same, with a task a line."""
    return replace(pipeline, learn_tasks="line")


def outcome(driver: Driver) -> dict[str, list[Any]]:
    """All that was written; of snapshots what they are, but for who else is in their task."""
    driver.runner.commit(checkpoint=True)
    found: dict[str, list[Any]] = {t: [r.value for r in driver.records(t)] for t in TOPICS}
    found["models"] = [_model(record.value) for record in driver.records("models")]
    return found


def _model(value: bytes | None) -> Any:
    if value is None:
        return None
    snapshot = decode(value)
    epoch = {k: v for k, v in snapshot.epoch.items() if k not in {"lines", "task", "late"}}
    return snapshot.model, snapshot.digest, snapshot.parent, snapshot.examples, epoch


@pytest.mark.parametrize("pipeline", [whole, rounds], ids=["by count", "by time, in rounds"])
def test_a_task_a_line_is_as_one_task(pipeline: Pipeline) -> None:
    """Snapshots by digest and place, decisions, evaluations and answers: to the last bit."""
    feed = stream(count=900)
    with Driver(pipeline) as one, Driver(by_line(pipeline)) as lines:
        one.feed(*feed)
        lines.feed(*feed)
        expected, actual = outcome(one), outcome(lines)
        names = [task.name for task in lines.runner.tasks if task.name.startswith("learn")]

    assert ["learn.logistic-0", "learn.bayes-0", "learn.late-0"] == names
    assert len(expected["models"]) > 20
    assert len(expected["registry"]) > 5
    assert expected == actual


@pytest.mark.parametrize("seed", range(6))
def test_no_death_changes_what_comes_out(seed: int) -> None:
    """Random batches, redelivery and several deaths: all that was written, byte by byte."""
    rand = random.Random(seed)
    pipeline = by_line(rounds if seed % 2 else whole)
    feed = stream(count=400)
    with Driver(pipeline) as quiet, Driver(pipeline, seed=seed) as crashed:
        quiet.feed(*feed)
        crashed.publish("labels", feed[1])
        crashed.publish("events", feed[0])
        crashed.feed([CRASH] * rand.randrange(1, 6))
        expected, actual = outcome(quiet), outcome(crashed)

    assert len(expected["registry"]) > 3
    assert expected == actual


def test_a_line_that_is_declared_late_is_a_task_that_goes_on_from_the_others() -> None:
    """It comes to serve when it does where one task has all lines, as the very same snapshots."""
    events, labels = stream(count=900)
    found = []
    for learn_tasks in ("one", "line"):
        with Driver(replace(declare(), learn_tasks=learn_tasks)) as driver:
            driver.feed(events[:450], [each for each in labels if each["ts"] <= events[450]["ts"]])
            driver.declare(replace(whole, learn_tasks=learn_tasks))
            driver.feed(events[450:], [each for each in labels if each["ts"] > events[450]["ts"]])
            found.append(outcome(driver))

    one, lines = found
    joined = [name for name, *_ in filter(None, one["models"]) if name.startswith("late@")]
    assert len(joined) > 3
    assert one == lines


def test_a_line_that_fails_is_missed_for_a_while_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody says for its task that it publishes no more; the others are renewed without it."""
    monkeypatch.setattr("stream_ml.stages.refresh.STALE_EXAMPLES", 40)
    with Driver(by_line(whole)) as driver:
        events, labels = stream(count=900)
        driver.publish("labels", labels)
        driver.feed(events[:450])
        driver.runner.learns[1]._give_up("bayes", "planted")
        driver.feed(events[450:])
        alerts = [alert["kind"] for alert in driver.read("alerts")]
        sets = [decision["serving"] for decision in driver.read("registry")]

    assert ["line_quarantined"] == alerts
    stays, newest = sets[-1]["challengers"]["bayes"]["model"], sets[-1]["champion"]["model"]
    assert int(newest.partition("@")[2]) > int(stays.partition("@")[2]) + 100


def test_one_task_is_not_turned_into_many() -> None:
    """State is kept by task: the change is refused with the way out, and nothing is touched."""
    with Driver(whole) as driver:
        driver.feed(*stream(count=100))
        driver.declare(by_line(whole))
        with pytest.raises(UsageError, match="learn_tasks: expected one, given line"):
            driver.run()
        driver.declare(whole)
        driver.run()


def test_tasks_are_one_or_one_a_line() -> None:
    """Anything else is no way to cut learning."""
    with pytest.raises(DeclarationError, match="learn_tasks: expected one of one, line"):
        replace(whole, learn_tasks="two")
