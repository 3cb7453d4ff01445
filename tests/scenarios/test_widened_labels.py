"""A label with more classes than before, on a log that has been worked on."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from river import linear_model, multiclass, naive_bayes, preprocessing, tree

import stream_ml as sml
from stream_ml.errors import UsageError
from stream_ml.records import Command, line_of
from stream_ml.sealing import Seals
from stream_ml.shell.redrive import Redrive, RedriveHistory
from stream_ml.shell.views.counted import counted_examples
from stream_ml.shell.views.dead_letters import LetterFilter
from stream_ml.shell.views.plan import read_plan
from stream_ml.shell.views.rebuild import rebuild
from stream_ml.shell.views.registry import read_registry, running_pipeline
from stream_ml.shell.views.reproduce import reproduce, sample
from stream_ml.shell.views.what_if import what_if
from stream_ml.signing import Keyring
from stream_ml.stages.evaluate import Evaluate
from stream_ml.stages.inputs import open_sealed
from stream_ml.stages.learn import Learn
from stream_ml.stages.plans import PlannedText, plan_details
from stream_ml.testing import CRASH, Driver
from tests.models.own import Counts
from tests.stages.test_promotion import ask

if TYPE_CHECKING:
    from stream_ml.pipeline import Pipeline

KEY = b"testing"
START, MINUTE = 1_700_000_000_000, 60_000
# At that minute the label has one class more.
CHANGE = 300
BAYES = naive_bayes.GaussianNB()
TREE = tree.HoeffdingTreeClassifier(grace_period=30, max_depth=3)
LOGISTIC = preprocessing.StandardScaler() | linear_model.LogisticRegression()
REST = preprocessing.StandardScaler() | multiclass.OneVsRestClassifier(
    linear_model.LogisticRegression()
)


def declared(*classes: str, **models: Any) -> Pipeline:
    """Parcels that go to one of these places; the first line serves first."""
    return sml.Pipeline(
        "sorting",
        events=sml.Events(key="who", fields={"x": float}, breadth=1),
        features=[sml.field("x")],
        label=sml.Label(sml.Enum(*classes), horizon="1h"),
        models=models,
        champion=next(iter(models)),
        promotion=sml.Promotion(
            mode="manual", refresh=40, block="2h", block_pairs_min=10, first=30
        ),
        monitors=sml.Monitors(block="1h"),
    )


def world(first: int, last: int, count: int = 3) -> tuple[list[Any], list[Any]]:
    """Parcels of minutes [first, last) and where they went, 5 minutes later: x tells, mostly."""
    events, labels = [], []
    for minute in range(first, last):
        rand, ts = random.Random(minute), START + minute * MINUTE
        place = rand.randrange(count)
        x = place + rand.gauss(0, 0.3)
        events.append({"event_id": f"e{minute}", "ts": ts, "who": "all", "x": x})
        labels.append({"event_id": f"e{minute}", "ts": ts + 5 * MINUTE, "label": "abc"[place]})
    return events, labels


def before(driver: Driver, count: int = 2) -> None:
    """The minutes up to the change."""
    driver.feed(*world(0, CHANGE, count))


def after(driver: Driver, minutes: int = 300) -> None:
    """Those since."""
    driver.feed(*world(CHANGE, CHANGE + minutes))


def plan(driver: Driver, pipeline: Pipeline) -> list[PlannedText]:
    """All that differs, as a command has it."""
    newest = read_registry(driver.log, KEY, 0).newest
    differences = [e.difference for e in read_plan(driver.log, pipeline, KEY, newest).changes]
    return [PlannedText(each.path, each.old, each.new, each.effect) for each in differences]


def apply(driver: Driver, pipeline: Pipeline) -> dict[str, Any]:
    """Have a changed declaration decided on by the worker that runs, and start it."""
    [decision] = ask(driver, "apply", "c1", details=plan_details(plan(driver, pipeline)))
    driver.declare(pipeline)
    answer: dict[str, Any] = decision
    return answer


def digests(driver: Driver) -> dict[str, str]:
    """By model, of its snapshot."""
    return {
        f"{each['model']}@{each['version']}": each["digest"]
        for each in driver.read("models")
        if each is not None
    }


def answers(driver: Driver, first: int) -> list[tuple[str, dict[str, float]]]:
    """Who answered from a minute on, and what."""
    return [
        (each["model"], each["prediction"])
        for each in driver.read("predictions")
        if each["ts"] >= START + first * MINUTE
    ]


def scores(driver: Driver) -> tuple[Any, Any]:
    """All that is known of how good models are, in the state."""
    driver.runner.commit(checkpoint=True)
    board = driver.runner.evaluate._decisions.scoreboard
    return board.dump(), board.dump_scores()


def test_what_meets_classes_as_they_come_goes_on() -> None:
    """Taken up at a start; learners and scores are as if it had been declared so all along."""
    lines = {"bayes": BAYES, "tree": TREE}
    with Driver(declared("a", "b", "c", **lines)) as whole:
        before(whole)
        after(whole)
        expected = digests(whole), scores(whole), whole.read("evaluations")[-6:]
    with Driver(declared("a", "b", **lines)) as driver:
        before(driver)
        driver.declare(declared("a", "b", "c", **lines))
        after(driver)
        told = [each["message"] for each in driver.read("alerts")]

        assert expected == (digests(driver), scores(driver), driver.read("evaluations")[-6:])
        assert [] == driver.read("dead-letters")
        assert any("label.type: was Enum('a', 'b'), is Enum('a', 'b', 'c')" in m for m in told)
        found = answers(driver, CHANGE)
        assert {"a", "b"} == set(found[0][1])
        assert {"a", "b", "c"} == set(found[-1][1])
        assert all(math.isclose(1.0, sum(answer.values())) for _, answer in found)


def test_what_has_fixed_classes_begins_anew_as_a_version() -> None:
    """Refused until it is applied; then taught what is recorded, it is as if it had had them."""
    lines = {"bayes": BAYES, "counts": Counts()}
    wider = declared("a", "b", "c", **lines)
    with Driver(wider) as whole:
        before(whole)
        after(whole)
        expected = digests(whole)
    with Driver(declared("a", "b", **lines)) as driver:
        before(driver)
        driver.declare(wider)
        with pytest.raises(UsageError, match=r"classes\.counts: expected Enum\('a', 'b'\), given"):
            driver.run()
        driver.declare(declared("a", "b", **lines))

        effects = {each.path: each.effect for each in plan(driver, wider)}
        costs = {e.difference.path: e.cost for e in read_plan(driver.log, wider, KEY).changes}
        assert apply(driver, wider)["kind"] == "applied"
        after(driver)

        cost = costs["classes.counts"]
        assert cost is not None
        assert CHANGE == cost.examples
        assert effects == {
            "label.type": "now",
            "label.fallback": "now",
            "classes.counts": "relearn",
        }
        [bayes] = what_if(driver.log, wider, KEY, {"bayes": BAYES}).candidates
        assert bayes.recorded is not None
        assert (600, 600) == (bayes.recorded.answers, bayes.recorded.answers_equal)
        found = digests(driver)
        assert expected["counts@560"] == found["counts.2@560"]
        assert expected["bayes@560"] == found["bayes@560"]
        assert not [name for name in found if name.startswith("counts@") and int(name[7:]) > CHANGE]
        assert [] == driver.read("dead-letters")


def test_what_serves_goes_on_with_the_classes_that_it_knows() -> None:
    """It answers for those until another model is promoted; all can be made again, and proved."""
    narrow, wider = declared("a", "b", counts=Counts()), declared("a", "b", "c", counts=Counts())
    with Driver(narrow) as driver:
        before(driver)
        assert apply(driver, wider)["kind"] == "applied"
        after(driver, 150)
        [promoted] = ask(driver, "promote", "c2", model="counts.2", expect="counts")
        driver.feed(*world(CHANGE + 150, CHANGE + 200))

        assert promoted["kind"] == "replaced"
        found = answers(driver, CHANGE)
        assert {"counts", "counts.2"} == {line_of(model) for model, _ in found}
        by_line = {line_of(model): set(answer) for model, answer in found}
        assert {"counts": {"a", "b"}, "counts.2": {"a", "b", "c"}} == by_line
        assert all(math.isclose(1.0, sum(answer.values())) for _, answer in found)
        made = reproduce(driver.log, wider, KEY, sample(driver.log, 50, 1))
        assert ([], 0) == (made.different, made.refused.total())
        assert len(made.answers) >= 50
        running = running_pipeline(driver.log, wider, KEY)
        for model in ("counts@240", "counts.2@440"):
            assert rebuild(driver.log, running, KEY, model).equal
        [rolled] = ask(driver, "rollback", "c3", expect="counts.2")
        driver.feed(*world(CHANGE + 200, CHANGE + 210))
        assert rolled["kind"] == "rolled_back"
        assert {"a", "b"} == set(answers(driver, CHANGE + 201)[-1][1])
        assert [] == driver.read("dead-letters")


def test_a_classifier_of_two_makes_way_for_one_of_three() -> None:
    """What knows but two answers for the first two classes, while the new version learns."""
    narrow, wider = declared("a", "b", model=LOGISTIC), declared("a", "b", "c", model=REST)
    with Driver(narrow) as driver:
        before(driver)
        effects = {each.path: each.effect for each in plan(driver, wider)}
        assert apply(driver, wider)["kind"] == "applied"
        after(driver, 150)
        ask(driver, "promote", "c2", model="model.2", expect="model")
        driver.feed(*world(CHANGE + 150, CHANGE + 200))

        assert effects == {"label.type": "now", "label.fallback": "now", "models.model": "relearn"}
        by_line = {line_of(model): set(answer) for model, answer in answers(driver, CHANGE)}
        assert {"model": {"a", "b"}, "model.2": {"a", "b", "c"}} == by_line
        made = reproduce(driver.log, wider, KEY, sample(driver.log, 50, 1))
        assert ([], 0) == (made.different, made.refused.total())
        assert len(made.answers) >= 50
        assert rebuild(driver.log, narrow, KEY, "model@240").equal
        first = [each["label"] for each in driver.read("examples")].index("c")
        assert first == len([*counted_examples(driver.log, narrow, None, first - 1)])
        with pytest.raises(UsageError, match="expected labels of one of a, b, given 'c'"):
            list(counted_examples(driver.log, narrow, None, first))
        assert [] == driver.read("dead-letters")


@pytest.mark.parametrize("seed", range(2))
def test_whoever_dies_at_the_change_it_comes_to_the_same(seed: int) -> None:
    """Deaths before and after it, redelivery and batches of any size change nothing."""
    lines = {"bayes": BAYES, "counts": Counts()}
    narrow, wider = declared("a", "b", **lines), declared("a", "b", "c", **lines)
    outcomes = []
    for number in (None, seed):
        with Driver(narrow, seed=number) as driver:
            for first in (0, 150, CHANGE, CHANGE + 100):
                if first == CHANGE:
                    assert apply(driver, wider)["kind"] == "applied"
                events, labels = world(
                    first, first + 150 if first < CHANGE else first + 100, 2 + (first >= CHANGE)
                )
                dies = (first + 37 * seed) % len(events)
                crashed = [*events[:dies], CRASH, *events[dies:]]
                driver.feed(events if number is None else crashed, labels)
            outcomes.append((digests(driver), scores(driver), driver.read("predictions")))

    assert outcomes[0] == outcomes[1]


def test_features_wait_for_classes_where_what_serves_has_fixed_ones() -> None:
    """It would be taught examples of a class that it has no output for; another line may be."""
    narrow = declared("a", "b", counts=Counts(), bayes=BAYES)
    wider = declared("a", "b", "c", counts=Counts(), bayes=BAYES)
    changed = replace(wider, features=[sml.field("x"), sml.log("x")])
    with Driver(narrow) as driver:
        before(driver)
        driver.declare(changed, apply="more")
        with pytest.raises(UsageError, match=r"classes\.counts: expected the recipe of the line"):
            driver.run()
        driver.declare(narrow)
        driver.run()
        ask(driver, "promote", "c1", model="bayes", expect="counts")
        driver.declare(changed, apply="more")
        after(driver, 150)

        assert ["counts.2", "bayes.2", "bayes"] == driver.runner.lines
        assert {"counts.2", "bayes.2", "bayes"} == {
            line_of(name) for name in digests(driver) if name.endswith("@440")
        }
        assert [] == driver.read("dead-letters")


def redriving(driver: Driver) -> Command:
    """The command that says what was published again."""
    number, identity = driver.log.end_offset("commands", 0), driver.log.identity
    return Command(
        f"r{number}", "redrive", 2**42, "local", "ana", "c came", pipeline="sorting", log=identity
    )


def test_labels_that_came_before_are_published_again() -> None:
    """They were of an unknown category then, and are joined once they are redriven."""
    narrow, wider = declared("a", "b", bayes=BAYES), declared("a", "b", "c", bayes=BAYES)
    with Driver(narrow) as driver:
        driver.feed(*world(0, 50))
        reasons = {each["reason"] for each in driver.read("dead-letters")}
        joined = len(driver.read("examples"))
        driver.declare(wider)
        driver.run()
        history = RedriveHistory(driver.log, wider.name, "local", KEY)
        again = Redrive(driver.log, wider, history, lambda: 2**42)
        again.publish(LetterFilter(), partial(redriving, driver), KEY)
        driver.run()

        assert {"unknown_category"} == reasons
        assert joined < len(driver.read("examples")) == 50
        assert {"a", "b", "c"} == {each["label"] for each in driver.read("examples")}


def test_a_worker_of_before_ends_where_an_example_has_a_class_that_it_does_not_know() -> None:
    """Passed over, or refused as a flaw, it would make another model, in silence."""
    narrow, wider = declared("a", "b", bayes=BAYES), declared("a", "b", "c", bayes=BAYES)
    with Driver(wider) as driver:
        driver.feed(*world(0, 20))
        examples, identity = driver.records("examples"), driver.log.identity
    seal = Seals(KEY, narrow.name, identity).records("examples")
    open_sealed(examples, seal)
    for stage in (Learn(narrow, KEY), Evaluate(narrow, Keyring(KEY, {}), identity)):
        for record in examples:
            record.memo = None
        with pytest.raises(UsageError, match="expected labels of one of a, b, given 'c' for the"):
            stage.apply(examples)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (("a",), "leave them declared"),
        (("a", "c"), "leave them declared"),
        (("b", "a"), "in their order"),
        (("a", "c", "b"), "in their order"),
    ],
)
def test_classes_are_not_taken_out_renamed_or_put_in_another_order(
    classes: tuple[str, ...], words: str
) -> None:
    """The plan and the start say why, and nothing is touched."""
    narrow = declared("a", "b", bayes=BAYES)
    changed = replace(narrow, label=sml.Label(sml.Enum(*classes, *"zy"[: 2 - len(classes)]), "1h"))
    with Driver(narrow) as driver:
        driver.feed(*world(0, 20, 2))
        effects = [each.effect for each in plan(driver, changed) if each.path == "label.type"]
        driver.declare(changed)
        with pytest.raises(UsageError, match=rf"label\.type: expected Enum\('a', 'b'\), .*{words}"):
            driver.run()

    assert ["refused"] == effects
