"""How many examples a line fits at once is changed by command, and is the same whoever dies."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from stream_ml.errors import StateRefused, StreamMLError
from stream_ml.models.pickles import decompress
from stream_ml.models.snapshot import decode
from stream_ml.records import ModelRef, Record, ServingSet
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.processes.isolation import Isolation
from stream_ml.shell.processes.stopwatch import ProcessStopwatch
from stream_ml.shell.views.rebuild import rebuild
from stream_ml.stages.batches import BATCHED, LineBatch, batch_evidence
from stream_ml.stages.learn import Learn
from stream_ml.stages.registry import Registry
from stream_ml.stages.restarts import RESTARTED, restart_evidence
from stream_ml.testing import CRASH, Driver
from tests.mini_batches import Steps
from tests.shop import KEY, declare, example, shop, stream
from tests.simulation.test_crash import outcome
from tests.stages.test_learn import published

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stream_ml.models.snapshot import Snapshot
    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.views.rebuild import RebuildView

LOG, DRIVER_KEY = "here", b"testing"
# Renewed at every 20th example; after 40, four wait for a batch of six.
batched = declare(models={**shop.models, "steps": Steps(6)})
SERVING = ServingSet(ModelRef("logistic@0", "d", 0), {"steps": ModelRef("steps@0", "d", 1)}, None)


def world(count: int) -> list[Record]:
    """Examples to learn from."""
    rand = random.Random(5)
    found = []
    for n in range(count):
        amount = rand.gauss(0, 1)
        found.append(example(n, amount + rand.gauss(0, 1) > 0, {"amount": amount}))
    return found


def decision(size: int | None, number: int = 0, line: str = "steps") -> Record:
    """A decision as it lies on the registry; without a size one that starts the line anew."""
    registry = Registry(shop.name, KEY, LOG)
    kind, evidence = RESTARTED, restart_evidence(line)
    if size is not None:
        kind, evidence = BATCHED, batch_evidence(LineBatch(line, size))
    for _ in range(number + 1):
        output = registry.decide(kind, "so", SERVING, ts=5, inputs={}, evidence=evidence)
    return Record("registry", 0, number, b"shop", output.value, 2**42)


def by_hand(*sizes: int) -> list[float]:
    """The weights after batches of so many examples each."""
    learner, taken = batched.recipes["steps"].fresh(), iter(world(1_000))
    for size in sizes:
        examples = [next(taken).memo for _ in range(size)]
        rows = [learner._row(each.prediction.features) for each in examples]
        learner._fit(rows, [float(each.label) for each in examples])
    return list(learner._weights)


def weights(snapshot: Snapshot) -> list[float]:
    """Those inside a snapshot."""
    return list(batched.recipes["steps"].load(decompress(snapshot.payload))._weights)


def digests(snapshots: list[Snapshot]) -> list[tuple[str, str]]:
    """Of each what it is called, and what is in it."""
    return [(each.model, each.digest) for each in snapshots]


def test_what_waits_is_fitted_at_the_next_refresh_and_the_new_batches_begin_there() -> None:
    """Each snapshot is that of a learner taught by hand, and says what holds, and since when."""
    learn = Learn(batched, KEY, log=LOG)
    learn.start()
    found = published(learn.apply(world(30)), "steps")
    learn.dirty()
    assert [] == learn.apply([decision(3)])
    assert learn.must_checkpoint()
    found += published(learn.apply(world(70)[30:]), "steps")

    expected = [[6] * 3, [*[6] * 6, 4], [*[6] * 6, 4, *[3] * 6]]
    assert [by_hand(*sizes) for sizes in expected] == [weights(each) for each in found]
    assert [{}, {"batch": 3, "rebatched": 0}, {"batch": 3}] == [
        {name: each.epoch[name] for name in ("batch", "rebatched") if name in each.epoch}
        for each in found
    ]


@pytest.mark.parametrize("cut", [29, 30, 33, 40, 47, 61])
@pytest.mark.parametrize("isolates", [False, True])
def test_a_state_anywhere_goes_on_to_the_same_snapshots(cut: int, *, isolates: bool) -> None:
    """Batches that wait, and a change that is not carried out yet, are part of it."""
    isolation = Isolation(batched, ("steps",) if isolates else ("none",))
    with closing(isolation):
        pipeline = isolation.running(batched)

        def work(stage: Learn, first: int, last: int) -> list[Snapshot]:
            return published(stage.apply(world(last)[first:]), "steps") if first < last else []

        learn = Learn(pipeline, KEY, log=LOG)
        learn.start()
        before = work(learn, 0, min(cut, 30))
        if cut >= 30:
            learn.apply([decision(3)])
            before += work(learn, 30, cut)
        heir = Learn(pipeline, KEY, log=LOG)
        heir.restore([(name, piece) for name, piece in learn.dirty() if piece is not None])
        if cut < 30:
            before += work(heir, cut, 30)
            heir.apply([decision(3)])
        after = work(heir, max(cut, 30), 80)
    whole = Learn(batched, KEY, log=LOG)
    whole.start()
    expected = published(whole.apply(world(30)), "steps")
    whole.apply([decision(3)])
    expected += published(whole.apply(world(80)[30:]), "steps")

    assert digests(expected) == digests([*before, *after])


def test_what_was_asked_last_holds_over_a_restart_of_the_line() -> None:
    """It is carried out again, and told so; one who comes first is not carried out."""
    learn = Learn(batched, KEY, log=LOG)
    learn.start()
    learn.apply(world(10))
    learn.apply([decision(5, 0), decision(3, 1)])
    learn.apply(world(30)[10:])
    learn.apply([decision(None, 2)])
    first, second = published(learn.apply(world(70)[30:]), "steps")

    assert (2, 3, 1) == (first.epoch["restarted"], first.epoch["batch"], first.epoch["rebatched"])
    assert (3, None) == (second.epoch["batch"], second.epoch.get("rebatched"))


def test_a_state_with_changed_batches_is_not_made_again() -> None:
    """After which example it was stands nowhere but in the state: refused, with the way out."""
    learn = Learn(batched, KEY, log=LOG)
    learn.replay(world(10))

    with pytest.raises(StateRefused, match="have started steps anew, or changed their batches"):
        learn.replay([decision(3)])


def test_a_decision_that_changes_no_line_is_replayed_whatever_was_changed_before() -> None:
    """A state that was written behind a change says where it was: nothing is lost."""
    learn = Learn(batched, KEY, log=LOG)
    learn.apply(world(10))
    learn.apply([decision(3), decision(None, 1)])
    learn.replay([decision(4, 2, "nobody")])
    (found,) = published(learn.apply(world(20)[10:]), "steps")

    assert (1, 3, 0) == tuple(found.epoch[name] for name in ("restarted", "batch", "rebatched"))


def history(seed: int | None) -> tuple[dict[str, list[Any]], list[Any]]:
    """What comes of commands about batches, with deaths by a seed; and all versions made again."""
    rand = random.Random(seed)
    events, labels = stream(count=240)
    half = len(events) // 2
    crashes = [CRASH] * (0 if seed is None else rand.randrange(1, 4))
    with Driver(batched, seed=seed) as driver:
        driver.publish("labels", labels[: half // 2])
        driver.publish("events", events[:half])
        driver.feed(crashes)
        asked = [("steps", 3), ("nobody", 3), ("bayes", 3), ("steps", 0), ("steps", 5_000)]
        for line, size in asked:
            driver.command("batch", model=line, details={"batch": size})
        driver.command("batch", model="steps")
        driver.publish("labels", labels[half // 2 :])
        driver.publish("events", events[half:])
        driver.feed(crashes)
        written = outcome(driver)
        written["decisions"] = driver.read("registry")
        models = [decode(r.value) for r in driver.records("models") if r.value]
        views = [
            rebuild(driver.log, batched, DRIVER_KEY, each.model)
            for each in models
            if each.name == "steps" and seed is None
        ]
    return written, views


def test_each_command_is_answered_and_carried_out_once_whoever_dies_when() -> None:
    """Wherever the worker dies nothing is otherwise; each version is learned again to its bits."""
    expected, views = history(None)
    answers = [each for each in expected["decisions"] if each["command_id"] is not None]

    assert [BATCHED, *["refused"] * 5] == [each["kind"] for each in answers]
    assert {"line": "steps", "batch": 3} == answers[0]["evidence"]
    words = ("a declared line", "as it comes", "from 1 on", "from 1 to 4096", "from 1 on")
    for word, answer in zip(words, answers[1:], strict=True):
        assert word in answer["reason"]
    assert [] == [view.as_dict() for view in views if not view.equal]
    assert 1 == sum("rebatched" in epoch for _, _, epoch in expected["models"] if epoch)
    for seed in range(8):
        assert expected == history(seed)[0], f"seed {seed}"


def changed_twice(
    pipeline: Pipeline, count: int
) -> Iterator[tuple[Snapshot, RebuildView | StreamMLError]]:
    """Versions of a line that was restarted right behind a change, once the rest is removed."""
    events, labels = stream(count=count)
    commands = [(30, "batch", 3), (40, "restart", None), (70, "batch", 4)]
    with Driver(pipeline) as driver:
        for label in labels:
            due = [each for each in events if each["ts"] <= label["ts"]]
            events = events[len(due) :]
            driver.feed(due, [label])
            if commands and driver.log.end_offset("examples", 0) == commands[0][0]:
                _, kind, size = commands.pop(0)
                driver.command(kind, model="steps", details=size and {"batch": size})
                driver.run()
        driver.runner.commit(checkpoint=True)
        driver.log.expire(driver.now_ms)
        for record in driver.records("models"):
            snapshot = decode(record.value) if record.value else None
            if snapshot is not None and snapshot.name == "steps":
                try:
                    yield snapshot, rebuild(driver.log, pipeline, DRIVER_KEY, snapshot.model)
                except StreamMLError as error:
                    yield snapshot, error


def test_a_version_is_learned_again_though_the_snapshot_of_a_change_was_removed() -> None:
    """Also of a line that was restarted right behind a change: each states its own changes."""
    found = list(changed_twice(declare(models=batched.models, keep=3), 400))

    assert [] == [each.model for each, _ in found if "rebatched" in each.epoch]
    assert [[[59, 3], [79, 4]]] * 3 == [each.epoch["batches"] for each, _ in found[-3:]]
    assert [True] * len(found) == [getattr(view, "equal", view) for _, view in found]


def test_a_restart_right_behind_a_change_is_learned_again() -> None:
    """What was fitted for the change belongs to the line as it was before its restart."""
    found = list(changed_twice(batched, 240))
    said = [
        each.epoch["restarted" if each.version == 60 else "rebatched"] for each, _ in found[2:4]
    ]

    assert [2, 4] == said
    assert [True] * len(found) == [getattr(view, "equal", view) for _, view in found]


def test_behind_too_many_changes_a_version_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A snapshot's size has a bound: it then states no changes, and is not learned otherwise."""
    monkeypatch.setattr("stream_ml.stages.batches.CHANGES_MAX", 1)
    *_, (snapshot, refusal) = changed_twice(declare(models=batched.models, keep=3), 400)

    assert (4, None) == (snapshot.epoch["batch"], snapshot.epoch.get("batches"))
    assert f"rebuild {snapshot.model}: expected in its snapshot where the batches" in str(refusal)


def answer_to(driver: Driver) -> dict[str, Any]:
    """The decision about a command that asks the line for batches of three."""
    driver.command("batch", model="steps", details={"batch": 3})
    driver.run()
    decisions = driver.read("registry")
    return dict(decisions[-1])


def test_a_command_that_meets_a_lost_process_is_to_be_given_again() -> None:
    """What befell the process says nothing about the batches: the next answer is another."""
    events, labels = stream(count=40)
    with closing(Isolation(batched, ("steps",), budget_s=0.3)) as isolation:
        recipe = isolation.running(batched).recipes["steps"]
        with Driver(isolation.running(batched)) as driver:
            driver.feed(events, labels[:2])
            recipe.dump(recipe.fresh())
            os.kill(isolation.processes["steps"].pid, signal.SIGSTOP)
            lost, later = answer_to(driver), answer_to(driver)

    assert ("refused", BATCHED) == (lost["kind"], later["kind"])
    assert "its process was lost" in lost["reason"]
    assert "ask again, `stream-ml batch steps 3`" in lost["reason"]


class Endless(Steps):
    """Does not come back for some seconds where its batches are changed."""

    def set_batch(self, size: int) -> None:
        """Be at work for five seconds of the processor's time."""
        end_s = time.process_time() + 5
        while time.process_time() < end_s:
            pass
        super().set_batch(size)


def test_a_line_that_does_not_come_back_from_its_trial_stops_no_commands() -> None:
    """In the worker's own process it is interrupted, and the command refused with the reason."""
    pipeline = declare(models={**shop.models, "steps": Endless(6)})
    events, labels = stream(count=40)
    stopwatch = ProcessStopwatch(hang_s=0.3, tick_s=0.05, clock=time.process_time)
    with Driver(pipeline) as driver:
        driver.feed(events, labels[:2])
        driver.command("batch", model="steps", details={"batch": 3})
        driver.declare(pipeline)
        with Runner(driver.log, pipeline, DRIVER_KEY, stopwatch=stopwatch) as runner:
            runner.run()
        decision = driver.read("registry")[-1]

    assert "refused" == decision["kind"]
    assert "has not returned for" in decision["reason"]


class Fatal(Steps):
    """Takes the worker with it where its batches are changed."""

    def set_batch(self, size: int) -> None:
        """Do as a signal does, which no stage contains."""
        raise KeyboardInterrupt(size)


def test_a_command_that_kills_the_worker_each_time_is_refused(tmp_path: Path) -> None:
    """The fourth worker does not try it, but says so, and goes on."""
    pipeline = declare(models={**shop.models, "steps": Fatal(6)})
    events, labels = stream(count=30)
    deaths = 0
    with Driver(pipeline) as driver:
        driver.feed(events, labels[:2])
        driver.command("batch", model="steps", details={"batch": 3})
        driver.declare(pipeline)
        while not (refused := [d for d in driver.read("registry") if d["kind"] == "refused"]):
            stopwatch = ProcessStopwatch(tmp_path / "turn")
            try:
                with Runner(driver.log, pipeline, DRIVER_KEY, stopwatch=stopwatch) as runner:
                    runner.run()
            except KeyboardInterrupt:
                deaths += 1

    assert deaths == 3
    assert "a worker that has died 3 times running while it tried" in refused[0]["reason"]
