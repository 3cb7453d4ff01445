"""Where each line is a task of its own it learns, and is judged, as where one task has all."""

from __future__ import annotations

import random
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from river import tree

import stream_ml as sml
from stream_ml.errors import DeclarationError, UsageError
from stream_ml.models.envelope import decode
from stream_ml.records import ModelRef
from stream_ml.sealing import strip_seal
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.regeneration import event_fold
from stream_ml.shell.views.status import read_status
from stream_ml.stages.learn import Learn
from stream_ml.stages.refresh import STALE_EXAMPLES, Refresh
from stream_ml.testing import CRASH, Driver
from tests.shop import KEY, declare, stream
from tests.stages.test_learn import published

if TYPE_CHECKING:
    from stream_ml.pipeline import Pipeline
    from stream_ml.stages.predict import Predict

whole = declare(
    models={
        **declare().models,
        "late": tree.HoeffdingTreeClassifier(grace_period=20, max_depth=3),
    }
)
rounds = replace(whole, promotion=replace(whole.promotion, refresh="1m", block="2m", maturity="1m"))
DAY_MS = 86_400_000
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


def test_a_line_that_is_declared_again_goes_on_from_nothing() -> None:
    """What its task had learned before it was taken out is gone, as where one task has all."""
    events, labels = stream(count=600)
    without, found = declare(), []
    for learn_tasks in ("one", "line"):
        with Driver(replace(whole, learn_tasks=learn_tasks)) as driver:
            driver.feed(events[:200], [each for each in labels if each["ts"] <= events[200]["ts"]])
            driver.declare(replace(without, learn_tasks=learn_tasks))
            driver.feed(events[200:400], [])
            count = len(driver.records("models"))
            again = {**whole.models, "late": tree.HoeffdingTreeClassifier(max_depth=2)}
            driver.declare(declare(models=again, learn_tasks=learn_tasks))
            driver.feed(events[400:], [each for each in labels if each["ts"] > events[200]["ts"]])
            found.append(outcome(driver)["models"][count:])
            driver.crash()

    one, lines = found
    first = next(model for model in lines if model and model[0].startswith("late@"))
    assert first[2] is None
    assert one == lines


def test_other_features_are_brought_about_as_where_one_task_has_all_lines() -> None:
    """Each line of the new generation is a task of its own; what comes out is the same."""
    events, labels = stream(count=600)
    wider = [*declare().features, sml.window("20s").count(kind="order")]
    found = []
    for learn_tasks in ("one", "line"):
        with Driver(declare(learn_tasks=learn_tasks)) as driver:
            driver.feed(events[:300], [each for each in labels if each["ts"] <= events[300]["ts"]])
            driver.declare(
                declare(learn_tasks=learn_tasks, features=wider), apply="orders say more"
            )
            driver.feed(events[300:], [each for each in labels if each["ts"] > events[300]["ts"]])
            found.append(outcome(driver))

    one, lines = found
    assert {"bayes.2", "logistic.2"} < {name.partition("@")[0] for name, *_ in one["models"]}
    assert one == lines


def test_events_are_folded_again_once_for_all_tasks_and_for_no_longer_than_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tasks that go in step share what is made again; it is let go of when none wants any more."""
    folds: list[Predict] = []

    def begin(*given: Any) -> Predict:
        folds.append(event_fold(*given))
        return folds[-1]

    monkeypatch.setattr("stream_ml.shell.regeneration.event_fold", begin)
    monkeypatch.setattr("stream_ml.shell.embedded.runner.CATCH_UP_RECORDS", 50)
    events, labels = stream(count=600)
    wider = [*declare().features, sml.window("20s").count(kind="order")]
    with Driver(by_line(declare())) as driver:
        driver.feed(events[:300], [each for each in labels if each["ts"] <= events[300]["ts"]])
        driver.declare(by_line(declare(features=wider)), apply="orders say more")
        while driver.runner.catch_up():
            assert len(folds) == 1
        driver.feed(events[300:], [each for each in labels if each["ts"] > events[300]["ts"]])
        tasks, features = driver.runner.learns, driver.runner._features
        recent = [len(features._past.tasks), len(features._recent.tasks)]
        later, truths = (
            [{**e, "event_id": f"l{e['event_id']}", "ts": e["ts"] + DAY_MS} for e in each]
            for each in (events, labels)
        )
        driver.feed(later, truths)

    assert ["bayes.2", "logistic", "logistic.2"] == sorted(task.name[6:-2] for task in tasks)
    # One for what is caught up with, and one for what came of events from before.
    assert 2 == len(folds)
    assert [0, 1] == recent
    assert [0, 0] == [len(features._past.tasks), len(features._recent.tasks)]


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


def test_a_line_that_an_operator_starts_anew_is_as_where_one_task_has_all() -> None:
    """Its own task alone reads that in the decision."""
    events, labels = stream(count=600)
    found = []
    for learn_tasks in ("one", "line"):
        with Driver(replace(whole, learn_tasks=learn_tasks)) as driver:
            driver.publish("labels", labels)
            driver.feed(events[:300])
            driver.command("restart", model="bayes")
            driver.feed(events[300:])
            kinds = [decision["kind"] for decision in driver.read("registry")]
            found.append(outcome(driver))

    assert "restarted" in kinds
    assert found[0] == found[1]


def test_whoever_looks_on_sees_each_task_and_what_its_line_costs() -> None:
    """Status has a row for each, with its lag; costs are those that each has measured."""
    ticks = iter(range(10**9))
    stopwatch: Any = SimpleNamespace(
        budget_s=1e9,
        seconds=lambda: next(ticks),
        begin=lambda *_: None,
        watch=nullcontext,
        attend=lambda _: None,
    )
    with Driver(by_line(whole)) as driver:
        driver.publish("events", stream(count=200)[0])
        driver.publish("labels", stream(count=200)[1])
        with Runner(driver.log, by_line(whole), b"testing", stopwatch=stopwatch) as runner:
            while runner.poll():
                pass
        status = read_status(driver.log, b"testing")
        examples = driver.log.end_offset("examples", 0)

    assert [
        (f"learn.{line}-0", "examples", examples) for line in ("logistic", "bayes", "late")
    ] == [
        (each.task, each.topic, each.position)
        for each in status.stages
        if each.task.startswith("learn") and each.topic == "examples"
    ]
    assert whole.recipes.keys() == status.costs.keys()
    assert all(cost.example_us for cost in status.costs.values())


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


def snapshot(line: str, version: int) -> Any:
    """One of a task of its own."""
    return SimpleNamespace(
        name=line,
        version=version,
        model=f"{line}@{version}",
        parent=None,
        epoch={"lines": [line], "task": [line]},
    )


def completed(refresh: Refresh, line: str, version: int) -> list[str] | None:
    """The lines that an instant has once a snapshot makes it complete; None: it waits."""
    each = snapshot(line, version)
    if not refresh.add(each, ModelRef(each.model, "d", 0), None):
        return None
    arrivals = refresh.complete(version)
    if arrivals is None:
        return None
    assert not refresh.renewal(arrivals, {}).begun.get(line)
    return sorted(arrivals)


def test_nobody_waits_for_a_task_that_is_behind_until_it_has_caught_up() -> None:
    """It is waited for once; then what it publishes late is no fault, but that it was silent."""
    refresh = Refresh(["a", "b"], are_tasks=True)
    assert [None, ["a", "b"]] == [completed(refresh, line, 0) for line in "ab"]
    assert completed(refresh, "a", 20) is None
    overdue = refresh.overdue(20 + STALE_EXAMPLES)
    assert overdue == 20
    assert refresh.complete(20) is not None

    assert ["a"] == completed(refresh, "a", 40)
    assert completed(refresh, "b", 20) is None
    assert ["a"] == completed(refresh, "a", 60)
    faults = {line: fault["count"] for line, fault in refresh.dump()["faults"].items()}
    # It publishes for the newest instant: from the next one on it is waited for again.
    assert completed(refresh, "b", 40) is None
    assert completed(refresh, "b", 60) is None
    assert completed(refresh, "a", 80) is None
    assert ["a", "b"] == completed(refresh, "b", 80)
    assert {} == refresh.dump()["faults"]
    assert {"b": 1} == faults


def test_a_task_that_begins_where_retention_has_left_the_rest_has_the_numbers_of_the_others() -> (
    None
):
    """So it publishes at the same instants; its snapshots count its own examples alone."""
    with Driver(whole) as driver:
        driver.feed(*stream(count=220))
        examples = [
            replace(record, value=strip_seal(record.value), memo=None)
            for record in driver.records("examples")
        ][50:120]
    learn = Learn(whole, KEY, line="late")
    learn.start()
    found = published(learn.apply(examples[:30]), "late")
    again = Learn(whole, KEY, line="late")
    again.restore([(name, value) for name, value in learn.dirty() if value is not None])
    found += published(again.apply(examples[30:]), "late")

    assert [60, 80, 100, 120] == [each.version for each in found]
    assert [10, 30, 50, 70] == [each.examples["count"] for each in found]
    assert {50} == {each.examples["first"] for each in found}
